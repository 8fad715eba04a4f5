"""The rules of the house: one-way imports, a torch-free API, plain names, one reader of the environment."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted([*ROOT.glob("models/**/*.py"), *ROOT.glob("service/**/*.py")])
VAGUE = {"utils", "helpers", "common", "core", "misc", "base"}
# What the API process, or the sandboxed decoder, imports.
TORCH_FREE = [
    "models.media",
    "models.strategies",
    "models.weights",
    "service.app",
    "service.client",
    "service.jobs",
]


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, by its full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def package(module: str) -> str:
    return module.split(".", 1)[0]


def test_models_never_import_the_service() -> None:
    offenders = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if path.is_relative_to(ROOT / "models") and "service" in map(package, imported(path))
    ]
    assert offenders == []


def test_strategies_never_import_each_other() -> None:
    shared = {"models.strategies", "models.strategies.options", "models.strategies.gate"}
    strategies = [
        path
        for path in (ROOT / "models/strategies").glob("*.py")
        if f"models.strategies.{path.stem}" not in shared
    ]
    names = {f"models.strategies.{path.stem}" for path in strategies} - {"models.strategies.__init__"}
    offenders = {path.stem: names & set(imported(path)) for path in strategies}
    assert {stem: found for stem, found in offenders.items() if found} == {}


@pytest.mark.parametrize("module", TORCH_FREE)
def test_the_api_process_is_free_of_torch(module: str) -> None:
    program = f"import {module}, sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("name", ["models", "service"])
def test_both_packages_come_from_this_root(name: str) -> None:
    assert Path(__import__(name).__file__ or "").parent == ROOT / name


def test_no_module_hides_one_of_the_standard_library_or_says_nothing() -> None:
    names = {path.stem for path in SOURCES if not path.stem.startswith("__")}
    assert names & (set(sys.stdlib_module_names) | VAGUE) == set()


def test_only_the_settings_read_the_environment() -> None:
    readers = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if any(
            isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
            for node in ast.walk(ast.parse(path.read_text()))
        )
    ]
    # Embedded mode hands the environment on to the processes it starts; a decoder throws it away.
    assert set(readers) <= {"service/embedded.py", "service/decoder.py"}


def test_no_file_is_too_long_to_read() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {path: lines for path, lines in lengths.items() if lines > 400} == {}
