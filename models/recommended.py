"""`auto`: the strategy that answers when the caller names none. Imports no torch.

Options decide first: a request that gives `labels` wants a strategy that takes labels. Of those that take
what was given, the first of this table that can run here answers, and the result names both.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from types import MappingProxyType

AUTO = "auto"

# In the order in which we recommend them, each with its reason. To be changed by measurement only:
# `python -m models.training.evaluate all --data synth:test --protocol robust`.
ORDER: Mapping[str, str] = MappingProxyType(
    {
        "ac-fpn": "trained to segment nothing but what sounds; the best by a tenth where all were measured",
        "tpavi": "trained for it too, and higher in the paper; with all sound off it keeps most of its score",
        "box-prompt": "the best of those without training: it names what it hears, and may find nothing",
        "heatmap-box-prompt": "finds the place of any sound, named or not",
        "point-prompt": "the same places by points, from which SAM's masks are a little less sure",
        "no-prompt": "slow, and its best object of a frame always sounds",
        "full-mask": "a baseline, for want of anything better: it does not listen",
        "random-sam": "a baseline below the other",
    }
)
BASELINES = frozenset({"full-mask", "random-sam"})
DEAF = (
    "No strategy that listens takes these options and can run here: {name} answered, a baseline. See "
    "`/v1/strategies`, and `python -m service weights list`."
)


def recommended(names: Iterable[str], ready: Container[str]) -> str | None:
    """Of the strategies that fit a request, the first of the table that is ready, else any that is."""
    places = {name: place for place, name in enumerate(ORDER)}
    best_first = sorted(names, key=lambda name: places.get(name, len(places)))
    return next((name for name in best_first if name in ready), None)
