"""The README's blocks run: against a real service, in an empty folder beside the sources."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from models.strategies import STRATEGIES
from models.weights import NETWORKS, WEIGHTS, Weights
from tests.cluster import Cluster

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = "http://127.0.0.1:8000"
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
LINES = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines() if line]
ROWS = [
    [cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"^\|.*\|$", README, re.MULTILINE)
]
PROGRAMS = [text for language, text in BLOCKS if language == "python"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a running service, and a folder in which what the README names is found."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("models", "service"):
        (folder / name).symlink_to(ROOT / name)
    with Cluster(registry="models.strategies") as cluster:
        yield cluster.url, folder


def lines(start: str) -> list[str]:
    return [line for line in LINES if line.startswith(start)]


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_line_is_of_a_kind_that_is_tested() -> None:
    assert {language for language, _ in BLOCKS} == {"sh", "python"}
    kinds = ("make ", "curl ", "python -m ", "docker compose ")
    assert [line for line in LINES if not line.startswith(kinds)] == []


@pytest.mark.parametrize("line", lines("make "))
def test_make_runs_a_program_that_exists(line: str) -> None:
    """What it would run, not the run itself: `make serve` does not end, `make faults` floods the machine."""
    asked = run([*shlex.split(line), "--dry-run", "--assume-old=.venv/ready"], ROOT).splitlines()
    modules = [words[2] for words in map(shlex.split, asked) if words[1:2] == ["-m"]]
    assert modules
    assert [module for module in modules if find_spec(module) is None] == []


@pytest.mark.parametrize("line", lines("curl "))
def test_the_requests_are_answered(line: str, service: tuple[str, Path]) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    url, folder = service
    run([*shlex.split(line.replace(ADDRESS, url)), "--fail", "--silent", "--show-error"], folder)


@pytest.mark.parametrize("line", lines("python -m "))
def test_the_commands_do_what_they_say(line: str, service: tuple[str, Path]) -> None:
    url, folder = service
    _, _, *words = shlex.split(line)
    if words[:3] == ["service", "weights", "fetch"]:
        assert all(word == "all" or any(name.startswith(word) for name in WEIGHTS) for word in words[3:])
        pytest.skip("downloads gigabytes")
    if words[:3] == ["service", "weights", "import"]:
        pytest.skip("imports a checkpoint of the reader's own; tests/test_weights.py imports one")
    if words[:2] == ["service", "segment"]:
        words += ["--url", url]
    run([sys.executable, "-m", *words], folder)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_programs_run(program: str, service: tuple[str, Path]) -> None:
    url, folder = service
    assert run([sys.executable, "-c", program.replace(ADDRESS, url)], folder)


@pytest.mark.parametrize("line", lines("docker compose "))
def test_the_containers_are_in_the_compose_file(line: str) -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    words = [word for word in shlex.split(line)[2:] if not word.startswith("-")]
    assert words[0] == "up" or words[1] in services


def test_what_the_readme_links_to_exists() -> None:
    links = re.findall(r"\]\((?!http)([^)]+)\)", (ROOT / "README.md").read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize(
    ("name", "words"), [("settings", ["settings"]), ("weights", ["weights", "list", "--table"])]
)
def test_the_tables_are_what_the_commands_print(name: str, words: list[str]) -> None:
    written = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", README, re.DOTALL)
    assert written is not None
    assert written[1] == run([sys.executable, "-m", "service", *words], ROOT)


def cells(header: str) -> dict[str, list[str]]:
    """The rows of the table of strategies whose last column is called so, by strategy."""
    first = next(number for number, row in enumerate(ROWS) if row[-1] == header)
    rows = ROWS[first + 2 :]  # after the line of dashes
    names = [row[0].strip("`") for row in rows]
    end = next((number for number, name in enumerate(names) if name not in STRATEGIES), len(names))
    return {name: row[1:] for name, row in zip(names[:end], rows, strict=False)}


def licences(text: str) -> set[str]:
    return set(re.findall(r"Apache-2\.0|CC0-1\.0|MIT", text))


def test_the_weights_of_every_strategy_are_named_with_their_licences() -> None:
    rows = cells("weights (licence)")
    assert set(rows) == set(STRATEGIES)
    for name, (*_, cell) in rows.items():
        named = re.sub(r" \([^)]*\)", "", cell).lower().replace(" ", "-").split(",-")
        assert named == ([*STRATEGIES[name].networks] or ["none"])
        published = [WEIGHTS[weight].licence for network in named for weight in NETWORKS.get(network, ())]
        assert licences(cell) == licences(" ".join(published))


def test_the_scores_are_those_of_the_weights_that_are_named(tmp_path: Path) -> None:
    shipped = Weights(tmp_path)  # nothing is installed there
    rows = cells("licence")
    assert set(rows) == set(STRATEGIES) - {"tpavi"}
    for name, (*_, weights, licence) in rows.items():
        used = [shipped.identity(network) for network in STRATEGIES[name].networks]
        assert re.findall(r"[\w-]+-tiny", weights) == [one.id for one in used]
        assert licences(licence) == {one.licence for one in used}
