"""The folder of a run: what it holds, and how it survives being killed at any moment.

    run.json              the recipe, its hash, the data, how long it is
    log.csv               a line a logged step; TensorBoard's events lie in tensorboard/
    state-00000120/       the newest whole state: weights, optimiser, random numbers, progress
    best.safetensors      the weights with the best validation so far
    weights.safetensors   those, at the end; curves.png and samples.png show how it went

A state is written under a hidden name and renamed when it is whole; the one before is removed after that.
Everything is safetensors and JSON: nothing of a run needs unpickling.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from models.acfpn import ACFPN, load_acfpn
from models.checkpoints import load_into, read_safetensors, weights_of, write_safetensors
from models.errors import DatasetInvalid, WeightsMissing
from models.files import metadata, replace_text
from models.tpavi import TPAVI, load_tpavi
from models.training.learners import Learner
from models.training.recipes import Recipe

COLUMNS = ("step", "epoch", "loss", "rate", "val_miou", "val_miou_plus", "val_f", "seconds")
# Whose tensors lie beside the optimiser's: the random generators' and the hints' names begin with these.
RANDOM, HINTS = "random.", "hints."


@dataclass
class Progress:
    """How far a run is: `step` steps are done; `best` is the validation score of `best.safetensors`."""

    step: int = 0
    best: float = -1.0
    best_step: int = 0
    seconds: float = 0.0


class Run:
    """A run's folder. `open` makes it or goes on with it."""

    def __init__(self, folder: Path, recipe: Recipe, data: str, steps: int) -> None:
        self.folder, self.recipe, self.data, self.steps = folder, recipe, data, steps

    def open(self, *, resume: bool) -> None:
        """Make the folder, or make sure that it holds this very run."""
        path = self.folder / "run.json"
        told = {"recipe": json.loads(self.recipe.json), "sha256": self.recipe.digest} | {
            "data": self.data,
            "steps": self.steps,
        }
        if not path.is_file():
            if self.folder.is_dir() and any(self.folder.iterdir()):
                raise DatasetInvalid(f"{self.folder} is not empty and holds no run: choose another folder.")
            self.folder.mkdir(parents=True, exist_ok=True)
            replace_text(path, json.dumps(told, indent=2) + "\n")
            return
        if not resume:
            raise DatasetInvalid(
                f"{self.folder} holds a run already: add --resume, or choose another folder."
            )
        try:
            before = json.loads(path.read_text())
        except ValueError as cause:
            raise DatasetInvalid(f"{path} is not JSON: {cause}.") from cause
        if odd := sorted(key for key in told if before.get(key) != told[key]):
            raise DatasetInvalid(
                f"{path} is of another run: it differs in {', '.join(odd)}. A resumed run keeps them all."
            )

    def save(self, learner: Learner, optimizer: Optimizer, progress: Progress) -> None:
        """A new state, whole or not at all; older ones go."""
        with new_state(self.folder, progress) as state:
            tensors = packed(optimizer) | hint_state(learner) | random_states()
            self.write(state / "weights.safetensors", learner, progress)
            write_safetensors(state / "optimizer.safetensors", tensors, {})

    def restore(self, learner: Learner, optimizer: Optimizer) -> Progress:
        """The newest state into both; a run that was killed before its first starts anew."""
        if not states(self.folder):
            return Progress()
        state = states(self.folder)[-1]
        load_into(learner.network, read_safetensors(state / "weights.safetensors"), str(state))
        tensors = read_safetensors(state / "optimizer.safetensors")
        unpack(optimizer, tensors)
        if learner.hints:
            learner.hints.load_state_dict({key: tensors[HINTS + key] for key in learner.hints.state_dict()})
        set_random_states(tensors)
        return Progress(**json.loads((state / "progress.json").read_text()))

    def keep(self, name: str, learner: Learner, progress: Progress) -> Path:
        """The weights alone, for use: `best` or `weights`."""
        path = self.folder / f"{name}.safetensors"
        self.write(path, learner, progress)
        return path

    def take_best(self, learner: Learner) -> None:
        """The weights with the best validation, into the network."""
        path = self.folder / "best.safetensors"
        load_into(learner.network, read_safetensors(path), str(path))

    def write(self, path: Path, learner: Learner, progress: Progress) -> None:
        """The weights, with what they are and what they come from inside."""
        told = learner.described | self.origin(progress)
        write_safetensors(path, weights_of(learner.network), told)

    def origin(self, progress: Progress) -> dict[str, str]:
        """What travels inside a file of weights, whatever the network."""
        return {
            "recipe": self.recipe.json,
            "recipe_sha256": self.recipe.digest,
            "data": self.data,
            "step": str(progress.step),
        }


LOADERS: Mapping[str, Callable[[Path], ACFPN | TPAVI]] = MappingProxyType(
    {"ac-fpn": load_acfpn, "tpavi": load_tpavi}
)


def network_in(path: Path) -> str:
    """Which network a file of weights is: as it says itself, else AC-FPN."""
    if not path.is_file():
        raise WeightsMissing(f"There is no file {path}.")
    told = metadata(path).get("earshot", "") if path.suffix == ".safetensors" else ""
    return told if told in LOADERS else "ac-fpn"


def load_trained(path: Path) -> ACFPN | TPAVI:
    """In evaluation mode, from a run's weights or from any AC-FPN checkpoint of the published size."""
    return LOADERS[network_in(path)](path)


def states(folder: Path) -> list[Path]:
    """Whole states of a run, oldest first."""
    return sorted(path for path in folder.glob("state-*") if path.is_dir())


@contextmanager
def new_state(folder: Path, progress: Progress) -> Iterator[Path]:
    """A folder to write a state into: it takes its name, and older ones go, when all of it is there."""
    target = folder / f"state-{progress.step:08d}"
    hidden = folder / f".{target.name}"
    shutil.rmtree(hidden, ignore_errors=True)
    hidden.mkdir()
    try:
        yield hidden
        replace_text(hidden / "progress.json", json.dumps(asdict(progress)) + "\n")
        older = [path for path in states(folder) if path != target]
        shutil.rmtree(target, ignore_errors=True)
        hidden.rename(target)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    for path in older:
        shutil.rmtree(path)


def packed(optimizer: Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors, `<parameter>.<name>`; its settings come from the recipe."""
    state: Mapping[int, Mapping[str, Any]] = optimizer.state_dict()["state"]
    return {
        f"{i}.{name}": torch.as_tensor(value) for i, entry in state.items() for name, value in entry.items()
    }


def unpack(optimizer: Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The way back."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if not key.startswith((RANDOM, HINTS)):
            number, name = key.split(".", 1)
            state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def hint_state(learner: Learner) -> dict[str, Tensor]:
    """The layers that are thrown away at the end."""
    return {HINTS + key: t for key, t in learner.hints.state_dict().items()} if learner.hints else {}


def random_states() -> dict[str, Tensor]:
    """Of torch's generators, one a device."""
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {f"{RANDOM}cpu": torch.get_rng_state()} | {
        f"{RANDOM}{number}": state for number, state in enumerate(devices)
    }


def set_random_states(tensors: Mapping[str, Tensor]) -> None:
    """The way back, for as many devices as there are."""
    torch.set_rng_state(tensors[f"{RANDOM}cpu"])
    for number in range(torch.cuda.device_count()):
        if f"{RANDOM}{number}" in tensors:
            torch.cuda.set_rng_state(tensors[f"{RANDOM}{number}"], number)


class Log:
    """`log.csv`. On going on after `step`, what a killed run logged beyond it is forgotten."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        kept = [row for row in self.rows() if int(row["step"]) <= step]
        lines = [",".join(COLUMNS), *(",".join(row[column] for column in COLUMNS) for row in kept)]
        replace_text(path, "\n".join(lines) + "\n")

    def rows(self) -> list[dict[str, str]]:
        """All lines that are whole."""
        if not self.path.is_file():
            return []
        with self.path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return [row for row in rows if None not in row.values() and None not in row]

    def write(self, **values: float) -> None:
        """A line; columns without a value stay empty."""
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow(
                [f"{values[column]:.6g}" if column in values else "" for column in COLUMNS]
            )
