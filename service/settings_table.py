"""The settings as a table in Markdown: what `python -m service settings` prints, and the README holds."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from service.settings import MEBIBYTE, Settings


def table() -> str:
    """A row a setting, in the order of the class."""
    return "\n".join(["| variable | default | what it is |", "|---|---|---|", *rows()])


def rows() -> Iterator[str]:
    for name, field in Settings.model_fields.items():
        meaning = " ".join((field.description or "").split())
        yield f"| `{variable(name, field)}` | {shown(name, field.default)} | {meaning} |"


def called(place: str) -> str:
    """The variable behind a name of a setting; a variable's own name stays."""
    return variable(place, Settings.model_fields[place]) if place in Settings.model_fields else place


def variable(name: str, field: FieldInfo) -> str:
    """Of the environment: the name that other software knows too, where there is one."""
    choices = getattr(field.validation_alias, "choices", [])
    return str(choices[-1]) if choices else f"EARSHOT_{name.upper()}"


def shown(name: str, value: Any) -> str:  # noqa: ANN401  (a setting of any type)
    """A default as somebody would write it, the same on every machine."""
    if isinstance(value, tuple):
        value = ",".join(value)
    if name.endswith("_bytes"):
        return f"`{value}` ({value // MEBIBYTE} MiB)"
    text = str(value).removesuffix(".0") if isinstance(value, float) else str(value)
    text = text.replace(str(Path.home()), "~").replace(tempfile.gettempdir(), "/tmp")
    return f"`{text}`" if text else "none"
