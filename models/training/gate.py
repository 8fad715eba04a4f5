"""What shipped weights must reach on SynthAVS, protocol robust. Whoever does not listen fails.

Also: whether two reports agree, which is how other seeds show that nobody was lucky.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from models.errors import InvalidOption
from models.training.scores import Score
from models.training.tables import Comparison, Line, Report, title

Scores = Mapping[str, Score]

LEAST = {"mIoU+": 0.75, "G-mIoU": 0.85}
MOST = {"FPR silence": 0.01, "FPR noise": 0.01, "FPR offscreen": 0.03}
ABOVE_DEAF, FOLLOWS = 0.25, 0.05  # of mIoU+, and of the swap-follow IoU from it
BOXES = 0.65  # mIoU+ of `box-prompt`
BASELINES = ("random-sam", "full-mask")
PUBLISHED_ORDER = ("box-prompt", "heatmap-box-prompt", "point-prompt", "no-prompt", "full-mask", "random-sam")
NEAR = 0.01  # scores closer than this agree, whatever their intervals


def listens(scores: Scores, deaf: float, _others: Mapping[str, Scores]) -> Iterator[str]:
    """AC-FPN's: why a strategy with these scores does not pass for one that hears."""
    values = {name: score.value for name, score in scores.items()}
    for name, least in LEAST.items():
        if not values[name] >= least:
            yield f"{name} is {values[name]:.3f}, below {least}"
    for name, most in MOST.items():
        if not values[name] <= most:
            yield f"{name} is {values[name]:.4f}, above {most}"
    if not values["mIoU+"] >= deaf + ABOVE_DEAF:
        yield f"mIoU+ is {values['mIoU+']:.3f}, not {ABOVE_DEAF} above the deaf {deaf:.3f}"
    if not abs(values["swap-follow IoU"] - values["mIoU+"]) <= FOLLOWS:
        yield f"swap-follow IoU is {values['swap-follow IoU']:.3f}, not within {FOLLOWS} of mIoU+"


def finds(scores: Scores, _deaf: float, _others: Mapping[str, Scores]) -> Iterator[str]:
    """Box-Prompt's."""
    if not scores["mIoU+"].value >= BOXES:
        yield f"mIoU+ is {scores['mIoU+'].value:.3f}, below {BOXES}"


def beats(scores: Scores, _deaf: float, others: Mapping[str, Scores]) -> Iterator[str]:
    """What a heat map prompts: its interval must lie above those of what looks anywhere."""
    mine = scores["mIoU+"]
    for name in BASELINES:
        if name not in others:
            yield f"{name} was not measured beside it"
            continue
        theirs = others[name]["mIoU+"]
        if not mine.low > theirs.high:
            yield f"mIoU+ is {mine.value:.3f}, not clearly above the {theirs.value:.3f} of {name}"


Judge = Callable[[Scores, float, Mapping[str, Scores]], Iterable[str]]
JUDGES: Mapping[str, Judge] = MappingProxyType(
    {"ac-fpn": listens, "box-prompt": finds, "heatmap-box-prompt": beats, "point-prompt": beats}
)


def verdicts(report: Report) -> dict[str, list[str]]:
    """What keeps each judged line from passing, by its title; nothing where it passes."""
    others = {line.strategy: line.scores for line in report.lines}
    deaf = report.ceilings["deaf ceiling"]
    judged = [(line, JUDGES[line.strategy]) for line in report.lines if line.strategy in JUDGES]
    if not judged:
        raise InvalidOption(f"The gate judges {', '.join(JUDGES)}; none of them was measured.")
    return {title(line): list(judge(line.scores, deaf, others)) for line, judge in judged}


def order(lines: Sequence[Line]) -> str:
    """Who is better than whom, beside the paper's Table 2."""
    ranked = sorted(lines, key=lambda line: -line.scores["mIoU+"].value)
    ours = ", ".join(f"{title(line)} {line.scores['mIoU+'].value:.3f}" for line in ranked)
    return f"By mIoU+: {ours}. In the paper, on S4: {', '.join(PUBLISHED_ORDER)}."


def compared(report: Report, before: Mapping[str, Any]) -> Comparison:
    """The scores of a report beside those of an earlier one."""
    for name in ("protocol", "data", "split"):
        if before[name] != getattr(report, name):
            raise InvalidOption(
                f"The earlier report's {name} is {before[name]!r}, and here it is {getattr(report, name)!r}."
            )
    earlier = scores_of(before)
    met, apart = 0, []
    for line in report.lines:
        for name, score in line.scores.items():
            old = earlier.get((line.strategy, line.label, line.preset, name))
            met += old is not None
            if old is not None and not agree(score, old):
                apart.append(f"{title(line)}, {name}: {score.value:.3f} here, {old.value:.3f} there")
    if not met:
        raise InvalidOption("The earlier report shares no strategy with what was measured here.")
    return Comparison(met, apart)


def agree(one: Score, other: Score) -> bool:
    """Whether the intervals touch, or the values are as good as equal."""
    if math.isnan(one.value) or math.isnan(other.value):
        return math.isnan(one.value) and math.isnan(other.value)
    touching = one.low <= other.high and other.low <= one.high
    return touching or abs(one.value - other.value) <= NEAR


def read(path: Path) -> dict[str, Any]:
    """A report as `--out` writes it."""
    try:
        told = json.loads(path.read_text())
    except FileNotFoundError:
        raise InvalidOption(f"There is no file {path}.") from None
    except ValueError as cause:
        raise InvalidOption(f"{path} is no report of an evaluation: {cause}.") from cause
    if not isinstance(told, dict) or not {"protocol", "data", "split", "lines"} <= set(told):
        raise InvalidOption(f"{path} is no report of an evaluation: name a report.json.")
    try:
        scores_of(told)  # now, not after minutes of judging
    except (KeyError, TypeError, AttributeError) as cause:
        raise InvalidOption(f"{path} is no report of an evaluation: its lines have no scores.") from cause
    return told


def scores_of(report: Mapping[str, Any]) -> dict[tuple[str, ...], Score]:
    """Of a report as it was read: by strategy, label, preset and name."""
    return {
        (line["strategy"], line["label"], line["preset"], name): Score(**finite(score))
        for line in report["lines"]
        for name, score in line["scores"].items()
    }


def finite(score: Mapping[str, float | None]) -> dict[str, float]:
    """Null is not a number."""
    return {name: math.nan if value is None else value for name, value in score.items()}
