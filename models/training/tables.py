"""An evaluation as text, as Markdown and as JSON: one table, under a head that says what it is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from models.training.scores import Score


@dataclass(frozen=True)
class Line:
    """One strategy with one set of options."""

    strategy: str
    preset: str
    options: Mapping[str, Any]
    weights: Mapping[str, Mapping[str, str]]
    """By network: id, sha256, licence, family."""
    scores: Mapping[str, Score]
    seconds_per_clip: float
    label: str = ""
    """The settings in which it differs from the lines beside it."""


@dataclass(frozen=True)
class Comparison:
    """With the scores of an earlier report: how many met their like, and those that do not agree."""

    met: int
    apart: Sequence[str]


@dataclass(frozen=True)
class Report:
    """What was asked, and the answer. `ceilings` are of the data, whoever looks at them."""

    protocol: str
    note: str
    data: str
    split: str
    clips: int
    seed: int
    probes: tuple[str, ...]
    lines: Sequence[Line]
    ceilings: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    gate: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What keeps each line from passing, by its title; nothing where it passes."""
    order: str = ""
    against: Comparison | None = None

    @property
    def objections(self) -> int:
        """Of the gate and of an earlier report."""
        apart = self.against.apart if self.against else ()
        return sum(map(len, self.gate.values())) + len(apart)

    @property
    def head(self) -> list[str]:
        """What every form of the table begins with."""
        lines = [
            f"{self.protocol}: {self.note}.",
            f"{self.data}, split {self.split}, {self.clips} clips, seed {self.seed}; "
            "in brackets 95 % by drawing clips again.",
        ]
        lines += [f"{name}: {value:.3f}" for name, value in self.ceilings.items()]
        return lines

    @property
    def foot(self) -> list[str]:
        """Weights and options, which belong to the numbers, and what is to be said of them."""
        lines = []
        for line in self.lines:
            files = ", ".join(f"{w['id']} {w['sha256'][:12]}" for w in line.weights.values()) or "no weights"
            lines.append(f"{title(line)}: {files}; {line.preset} {json.dumps(line.options)}")
        lines += [f"left out: {name}: {why}" for name, why in self.left_out.items()]
        for name, problems in self.gate.items():
            lines.append(f"gate: {name}: {'not passed: ' + '; '.join(problems) if problems else 'passed'}")
        lines += [self.order] if self.order else []
        if self.against:
            agreeing = self.against.met - len(self.against.apart)
            lines.append(f"{agreeing} of {self.against.met} scores agree with the earlier report")
            lines += [f"apart: {each}" for each in self.against.apart]
        return lines

    def cells(self) -> list[list[str]]:
        """The head of the columns and the lines."""
        names = list(self.lines[0].scores) if self.lines else []
        rows = [["strategy", *names, "s/clip"]]
        for line in self.lines:
            scores = [shown(line.scores[name]) for name in names]
            rows.append([title(line), *scores, f"{line.seconds_per_clip:.3f}"])
        return rows

    def text(self) -> str:
        """For a terminal: a score a line, a strategy a column."""
        rows = list(zip(*self.cells(), strict=True))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        table = ["  ".join(map(str.ljust, row, widths)) for row in rows]
        return "\n".join([*self.head, "", *(line.rstrip() for line in table), "", *self.foot]) + "\n"

    def markdown(self) -> str:
        """For a README: a strategy a line."""
        rows = ["| " + " | ".join(row) + " |" for row in self.cells()]
        rows.insert(1, "|" + " --- |" * len(self.cells()[0]))
        return "\n".join([*self.head, "", *rows, "", *(f"- {line}" for line in self.foot)]) + "\n"

    def json(self) -> str:
        """Everything, unrounded; what could not be counted is null."""
        return json.dumps(finite(asdict(self)), indent=2) + "\n"


def title(line: Line) -> str:
    """A line's name."""
    return f"{line.strategy} {line.label}".strip()


def shown(score: Score) -> str:
    """0.612 [0.580, 0.640]; without brackets where there was but one clip or family to draw."""
    if math.isnan(score.value):
        return "-"
    if math.isnan(score.low):
        return f"{score.value:.3f}"
    return f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]"


def finite(value: object) -> object:
    """JSON has no word for what is not a number but null."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
