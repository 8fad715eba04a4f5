"""What the images and the compose file would do, as far as that shows without a container engine."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from service.settings import Settings
from service.telemetry import Metrics

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = COMPOSE["services"]
OURS = {name: one for name, one in SERVICES.items() if "build" in one}
DOCKERFILES = {path.stem: path for path in sorted(ROOT.glob("docker/*.Dockerfile"))}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions(path: Path) -> Iterator[tuple[str, str]]:
    """Each instruction of a Dockerfile and its words."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, words = line.partition(" ")
        yield name, words.strip()


def instruction(path: Path, wanted: str) -> str:
    """The last one of that name: the one that counts."""
    return [words for name, words in instructions(path) if name == wanted][-1]


def environment(path: Path) -> dict[str, str]:
    words = " ".join(words for name, words in instructions(path) if name == "ENV")
    return dict(pair.split("=", 1) for pair in shlex.split(words))


def test_the_compose_file_is_one_by_the_specification() -> None:
    schema = json.loads((ROOT / "tests/data/compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(COMPOSE)


def test_the_specification_would_notice_a_typing_error() -> None:
    schema = json.loads((ROOT / "tests/data/compose-spec.json").read_text())
    wrong = {**COMPOSE, "services": {**SERVICES, "api": {**SERVICES["api"], "helthcheck": {}}}}
    assert not jsonschema.Draft7Validator(schema).is_valid(wrong)


def test_there_is_one_image_for_each_task() -> None:
    assert set(DOCKERFILES) == {"api", "worker", "trainer"}
    assert {one["build"]["dockerfile"] for one in OURS.values()} == {
        f"docker/{name}.Dockerfile" for name in DOCKERFILES
    }


@pytest.mark.parametrize("name", DOCKERFILES)
def test_every_copied_source_exists_and_is_sent_to_the_builder(name: str) -> None:
    copied = [
        word
        for kind, words in instructions(DOCKERFILES[name])
        if kind == "COPY"
        for word in words.split()[:-1]
    ]
    assert {"pyproject.toml", "constraints.txt", "models"} <= set(copied)
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    sent = {rule[1:] for rule in rules if rule.startswith("!")}
    assert rules[0] == "*"
    for source in copied:
        assert (ROOT / source).exists(), source
        assert source in sent, f"{source} is kept from the builder"


def test_the_builder_gets_no_caches() -> None:
    assert any(
        fnmatch("models/__pycache__", rule) for rule in (ROOT / ".dockerignore").read_text().splitlines()
    )


@pytest.mark.parametrize("name", DOCKERFILES)
def test_images_run_as_nobody_in_particular(name: str) -> None:
    order = [kind for kind, _ in instructions(DOCKERFILES[name])]
    assert instruction(DOCKERFILES[name], "USER") == "earshot"
    assert order.index("USER") < order.index("ENTRYPOINT")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_environments_name_settings_that_exist(name: str) -> None:
    known = {f"EARSHOT_{field.upper()}" for field in Settings.model_fields}
    ours = {key for key in environment(DOCKERFILES[name]) if key.startswith("EARSHOT_")}
    assert ours <= known


def test_the_compose_file_names_settings_that_exist() -> None:
    known = {f"EARSHOT_{field.upper()}" for field in Settings.model_fields} | {"REDIS_URL", "STORAGE_URL"}
    for one in OURS.values():
        assert set(one.get("environment", {})) <= known


def test_the_api_image_holds_no_torch() -> None:
    assert "[api]" in " ".join(words for _, words in instructions(DOCKERFILES["api"]))
    names = {canonicalize_name(requirement.name) for requirement in closure("api")}
    assert {"fastapi", "av", "redis"} <= names
    assert not names & {"torch", "transformers", "scipy"}


@pytest.mark.parametrize("service", OURS)
def test_every_command_starts_here(service: str) -> None:
    one = OURS[service]
    image = DOCKERFILES[Path(one["build"]["dockerfile"]).stem]
    entrypoint = one.get("entrypoint") or json.loads(instruction(image, "ENTRYPOINT"))
    command = one.get("command") or []
    assert entrypoint[:2] == ["python", "-m"]
    if not (ROOT / f"{entrypoint[2].replace('.', '/')}/__main__.py").exists():
        pytest.skip(f"`python -m {entrypoint[2]}` is not written yet")
    program = [sys.executable, *entrypoint[1:], *command, "--help"]
    answer = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert "usage" in answer.stdout.lower()


@pytest.mark.parametrize("name", ["api", "worker"])
def test_health_checks_are_python_that_fails_without_a_server(name: str) -> None:
    check = instruction(DOCKERFILES[name], "HEALTHCHECK")
    program = json.loads(check[check.index("[") :])
    assert program[0] == "python"
    with socket.socket() as reserved:  # a port of ours on which nobody listens
        reserved.bind(("127.0.0.1", 0))
        program[2], replaced = re.subn(r":\d+/", f":{reserved.getsockname()[1]}/", program[2])
        assert replaced == 1
        answer = subprocess.run([sys.executable, *program[1:]], capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert "refused" in answer.stderr


def test_containers_of_ours_are_hardened() -> None:
    for name, one in SERVICES.items():
        assert one["read_only"], name
        assert one["cap_drop"] == ["ALL"], name
        assert one["security_opt"] == ["no-new-privileges:true"], name


def test_redis_keeps_jobs() -> None:
    words = " ".join(SERVICES["redis"]["command"])
    assert "--appendonly yes" in words
    assert "--maxmemory-policy noeviction" in words
    assert SERVICES["redis"]["volumes"] == ["redis:/data"]


def test_profiles_and_the_gpu() -> None:
    profiles = {name: one.get("profiles", []) for name, one in SERVICES.items()}
    assert profiles["redis"] == profiles["api"] == []
    assert (profiles["worker"], profiles["worker-cpu"], profiles["trainer"]) == (["gpu"], ["cpu"], ["train"])
    assert profiles["prometheus"] == profiles["grafana"] == ["observability"]
    assert "COMPOSE_PROFILES=gpu" in (ROOT / ".env").read_text().splitlines()
    assert profiles["trainer-cpu"] == ["train"]
    for name in ("worker", "trainer"):
        devices = SERVICES[name]["deploy"]["resources"]["reservations"]["devices"]
        assert devices[0]["capabilities"] == ["gpu"]
    assert all("deploy" not in SERVICES[name] for name in ("worker-cpu", "trainer-cpu"))


def test_workers_cannot_reach_the_internet() -> None:
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert all(SERVICES[name]["networks"] == ["inside"] for name in ("redis", "worker", "worker-cpu"))


def test_volumes_are_declared_and_bound_files_exist() -> None:
    for name, one in SERVICES.items():
        for volume in one.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), f"{name}: {source}"
            elif not source.startswith("$"):
                assert source in COMPOSE["volumes"], f"{name}: {source}"


def test_media_lies_where_both_processes_look() -> None:
    api, worker = environment(DOCKERFILES["api"]), environment(DOCKERFILES["worker"])
    for name in ("STORAGE_URL", "EARSHOT_SCRATCH_DIR"):
        assert api[name] == worker[name]
    assert api["STORAGE_URL"].startswith("file:///srv/earshot/")
    assert all("media:/srv/earshot" in SERVICES[name]["volumes"] for name in ("api", "worker", "worker-cpu"))


def test_the_api_has_no_weights() -> None:
    assert not any("weights" in volume for volume in SERVICES["api"]["volumes"])
    assert not any("WEIGHTS" in name for name in SERVICES["api"]["environment"])


def test_the_trainer_looks_for_weights_and_writes_runs_where_volumes_are() -> None:
    """Its root is read only, and it is started as whoever owns the folder of runs."""
    image, one = DOCKERFILES["trainer"], SERVICES["trainer"]
    mounted = {volume.rsplit(":/", 1)[1] for volume in one["volumes"]}
    program = "from models.training.__main__ import RUNS, DEFAULT_FOLDER; print(DEFAULT_FOLDER); print(RUNS)"
    home = environment(image)["HOME"]
    answer = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"HOME": home},
        capture_output=True,
        text=True,
        check=True,
    )
    weights, runs = answer.stdout.split()
    assert f"{weights[1:]}:ro" in mounted
    assert f"{instruction(image, 'WORKDIR')}/{runs}"[1:] in mounted


def test_a_stopping_container_has_time_to_drain() -> None:
    drain = Settings.model_fields["drain_seconds"].default
    assert all(int(OURS[name]["stop_grace_period"][:-1]) > drain for name in ("api", "worker", "worker-cpu"))


def test_prometheus_scrapes_the_ports_that_are_exposed() -> None:
    jobs = yaml.safe_load((ROOT / "docker/prometheus.yml").read_text())["scrape_configs"]
    found = {job["job_name"]: job["dns_sd_configs"][0] for job in jobs}
    for name in ("api", "worker"):
        assert str(found[name]["port"]) == instruction(DOCKERFILES[name], "EXPOSE")
        assert set(found[name]["names"]) <= set(SERVICES)
    assert environment(DOCKERFILES["worker"])["EARSHOT_WORKER_METRICS_PORT"] == str(found["worker"]["port"])


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    dashboard = json.loads((ROOT / "docker/grafana/dashboards/earshot.json").read_text())
    queries = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    shown = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in re.findall(r"avs_\w+", queries)}
    assert shown == {family.name for family in Metrics().registry.collect()}
    source = yaml.safe_load((ROOT / "docker/grafana/provisioning/datasources/prometheus.yml").read_text())
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {source["datasources"][0]["uid"]}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def required(extra: str) -> list[Requirement]:
    """The requirements of an extra of this project, its own extras (`earshot[api]`) followed."""
    found = []
    for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
        if requirement.name == PROJECT["name"]:
            found += [inner for name in requirement.extras for inner in required(name)]
        else:
            found.append(requirement)
    return [*map(Requirement, PROJECT["dependencies"]), *found]


def applies(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras or {""})


def closure(extra: str) -> list[Requirement]:
    """Everything that an image installs: what it requires, what that requires, as the installed files say."""
    open_, seen, found = required(extra), set(), []
    while open_:
        requirement = open_.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if not applies(requirement, set()):
            continue
        found.append(requirement)
        if key in seen:
            continue
        seen.add(key)
        try:
            needs = distribution(requirement.name).requires or []
        except PackageNotFoundError:
            pytest.fail(f"{requirement} is needed by the extra {extra} and is not installed")
        open_ += [inner for inner in map(Requirement, needs) if applies(inner, {"", *requirement.extras})]
    return found


@pytest.mark.parametrize("extra", ["api", "worker", "train"])
def test_dependency_sets_resolve_to_the_pins(extra: str) -> None:
    pinned = pins()
    for requirement in closure(extra):
        name = canonicalize_name(requirement.name)
        if name == "setuptools" or name.startswith("nvidia-") or name == "triton":
            continue  # CUDA's wheels follow torch's own exact pins
        assert name in pinned, f"{requirement} has no pin in constraints.txt"
        assert requirement.specifier.contains(pinned[name], prereleases=True), (
            f"{requirement}, {pinned[name]}"
        )
