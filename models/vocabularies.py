"""Names of what can sound: AudioSet's 527, AVSBench's 23, the 70 of AVSBench-semantic, SynthAVS's 12. Imports
no torch.

The published lists are data, `models/labels/*.txt`, a name a line; lines that begin with # say where they
come from. SynthAVS's are those of its classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

from models.datasets.kinds import CLASS_NAMES

FOLDER = Path(__file__).resolve().parent / "labels"
VocabularyName = Literal["audioset", "avsbench", "avss", "synthavs"]
FILES: Mapping[str, str] = MappingProxyType(
    {"audioset": "audioset_527.txt", "avsbench": "avsbench_23.txt", "avss": "avss_70.txt"}
)
# AudioSet's names of what is heard when nothing that could be seen is.
NOISE = (
    "Silence",
    "Static",
    "Noise",
    "Environmental noise",
    "White noise",
    "Pink noise",
    "Hum",
    "Mains hum",
)


@lru_cache(maxsize=len(get_args(VocabularyName)))
def vocabulary(name: VocabularyName) -> tuple[str, ...]:
    """The names of a list, in its own order; hyphens of file names are spaces in speech."""
    if name == "synthavs":
        return CLASS_NAMES
    lines = (FOLDER / FILES[name]).read_text(encoding="utf-8").splitlines()
    names = (line for line in lines if not line.startswith("#"))
    return tuple(line.replace("-", " ") if name == "avss" else line for line in names)


def chosen(name: VocabularyName, labels: Iterable[str]) -> tuple[str, ...]:
    """The names of a list that the caller wants, spelled as the list does; ValueError for any other."""
    known = {label.casefold(): label for label in vocabulary(name)}
    return tuple(
        known[label.casefold()] if label.casefold() in known else _refuse(name, label) for label in labels
    )


def _refuse(name: VocabularyName, label: str) -> str:
    near = get_close_matches(label, vocabulary(name), n=3, cutoff=0.4)
    hint = f" Near it are {', '.join(map(repr, near))}." if near else ""
    raise ValueError(
        f"{label[:60]!r} is not in the vocabulary {name}.{hint} "
        "To look for any names, leave `vocabulary` out."
    )
