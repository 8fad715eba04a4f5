"""The README's blocks run: against a real service, in an empty folder beside the sources."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from models.weights import WEIGHTS
from tests.cluster import Cluster

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = "http://127.0.0.1:8000"
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
LINES = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines() if line]
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
    kinds = ("make ", "curl ", "python -m ", "docker compose ")
    assert [line for line in LINES if not line.startswith(kinds)] == []


@pytest.mark.parametrize("line", lines("make "))
def test_the_make_targets_exist(line: str) -> None:
    assert re.search(rf"^{line.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


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
