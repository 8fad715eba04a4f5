"""Who is judged: strategies of the registry, each with the options that the command line asks for."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from models.errors import InvalidOption, WeightsMissing
from models.files import digest
from models.networks import Networks
from models.strategies import STRATEGIES, Strategy
from models.training.remembering import Remembering
from models.training.runs import load_trained, network_in
from models.weights import Identity, Weights


class TrainedNetworks(Networks):
    """The networks of a process, one of them from a file of a training run."""

    def __init__(self, device: str, weights: Weights, batcher: Remembering, file: Path) -> None:
        super().__init__(device, weights, batcher)
        self.file, self.trained = file, network_in(file)
        self._loaded[self.trained] = load_trained(file).to(self.device).requires_grad_(False)

    def identity(self, name: str) -> Identity:
        """Which weights answer for this name."""
        if name != self.trained:
            return super().identity(name)
        return Identity(self.file.name, digest(self.file), "not stated", "published")


def strategies_of(
    wanted: str, weights: Weights, trained: str | None
) -> tuple[dict[str, Strategy], dict[str, str]]:
    """The strategies to judge, and of `all` those that cannot be, with the reason. The network `trained` is
    there, whether installed or not."""
    if wanted != "all" and wanted not in STRATEGIES:
        raise InvalidOption(f"There is no strategy {wanted!r}; there are all, {', '.join(STRATEGIES)}.")
    chosen: dict[str, Strategy] = {}
    left_out: dict[str, str] = {}
    for name, strategy in STRATEGIES.items():
        if wanted not in ("all", name):
            continue
        try:
            for network in strategy.networks:
                if network != trained:
                    weights.resolve(network)
            chosen[name] = strategy
        except WeightsMissing as why:
            if wanted != "all":
                raise
            left_out[name] = str(why)
    return chosen, left_out


def settings(name: str, strategy: Strategy, options: argparse.Namespace) -> Iterator[tuple[str, Any]]:
    """The preset with what `--set` changes, once for every combination of what `--sweep` lists."""
    fixed = [(key, [value]) for key, value in pairs(options.set, name)]
    sweeps = [(key, values.split(",")) for key, values in pairs(options.sweep, name)]
    for choice in itertools.product(*([(key, v) for v in values] for key, values in (*fixed, *sweeps))):
        swept = choice[len(fixed) :]
        yield " ".join(f"{key}={value}" for key, value in swept), changed(strategy, options.preset, choice)


def pairs(texts: Sequence[str], name: str) -> Iterator[tuple[str, str]]:
    """Those of `key=value` that are meant for this strategy: all but the ones that begin with another's
    `name:`."""
    for text in texts:
        key, equals, value = text.partition("=")
        owner, colon, inner = key.rpartition(":")
        if not (inner and equals and value):
            raise InvalidOption(f"{text!r} is not KEY=VALUE.")
        if colon and owner not in STRATEGIES:
            raise InvalidOption(f"There is no strategy {owner!r}; there are {', '.join(STRATEGIES)}.")
        if owner in ("", name):
            yield inner, value


def changed(strategy: Strategy, preset: str, choice: Sequence[tuple[str, str]]) -> Any:  # noqa: ANN401  (each strategy has a class of its own)
    """A preset with other values; keys are paths: `thresholds.mask`."""
    values = asdict(strategy.presets[preset])
    for key, value in choice:
        *path, last = key.split(".")
        inner: Any = values
        for part in path:
            inner = inner.get(part) if isinstance(inner, Mapping) else None
        if not isinstance(inner, dict) or last not in inner:
            known = ", ".join(paths(asdict(strategy.presets[preset])))
            raise InvalidOption(f"There is no option {key!r}; there are {known or 'none'}.")
        inner[last] = literal(value)
    try:
        return TypeAdapter(strategy.options).validate_python(values)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidOption(f"The option {where} cannot be {first['input']!r}: {first['msg']}.") from None


def paths(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The keys of nested options: `thresholds.mask`."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from paths(value, f"{above}{key}.")
        else:
            yield above + key


def literal(text: str) -> object:
    """A number, true, false or null, as JSON writes them; anything else is text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
