"""The loop of the tiny family: steps, validation, states, and a file of weights that says how it was made.

    plan.json             the network's name and plan, and how many steps this run has
    log.jsonl             a line a logged step, also of a run that was killed and went on
    state-00000120/       the newest whole state; older ones go once it is whole
    best.safetensors      the weights with the best validation so far
    weights.safetensors   those, at the end; scores.json beside it

A run that is killed goes on from its newest state to the same weights: batches follow from the step alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.utils.data import DataLoader
from tqdm import tqdm

from models.checkpoints import load_into, read_safetensors, weights_of, write_safetensors
from models.errors import DatasetInvalid, TrainingDiverged
from models.files import replace_text
from models.training.family.task import Plan, Task
from models.training.runs import (
    Progress,
    new_state,
    packed,
    random_states,
    set_random_states,
    states,
    unpack,
)
from models.training.step import gradient_norm

LOGGED_EVERY = 20  # steps
SMOOTHING = 0.05  # of the logged losses: the newest step's share


@dataclass(frozen=True)
class Habits:
    """How a run is run; nothing here changes the weights on one device."""

    out: Path
    device: str = "auto"
    workers: int = 0
    save_every: int = 200
    resume: bool = False


def train(task: Task, habits: Habits) -> Path:
    """Train to the end; the file of the weights that did best on the validation split."""
    torch.manual_seed(task.plan.seed)
    fabric = Fabric(accelerator=habits.device, devices=1)
    folder = Folder(habits.out, task)
    folder.open(resume=habits.resume)
    task.learner.to(fabric.device)
    moving = [parameter for parameter in task.learner.parameters() if parameter.requires_grad]
    optimizer = AdamW(moving, lr=task.plan.rate, weight_decay=task.plan.decay)
    progress = folder.restore(task, optimizer)
    losses: dict[str, float] = {}
    began = time.perf_counter()
    for batch in bar(batches(task, progress.step, habits.workers), task, progress.step):
        rate = task.plan.rate * factor(task.plan, progress.step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        task.learner.train()
        newest = step(task, optimizer, fabric.to_device(batch), progress.step)
        losses = {
            name: value + (losses.get(name, value) - value) * (1 - SMOOTHING)
            for name, value in newest.items()
        }
        progress.step += 1
        due = progress.step == task.plan.steps or progress.step % task.plan.validate_every == 0
        scores = judged(task, folder, progress) if due else {}
        now = time.perf_counter()
        progress.seconds, began = progress.seconds + now - began, now
        if due or progress.step % LOGGED_EVERY == 0:
            folder.log({"step": progress.step, "seconds": progress.seconds, "rate": rate} | losses | scores)
        if due or progress.step % habits.save_every == 0:
            folder.save(task, optimizer, progress)
    return folder.finish(progress)


def step(task: Task, optimizer: Optimizer, batch: Any, number: int) -> dict[str, float]:  # noqa: ANN401  (the task's own)
    """One update; the losses by name. Nothing moves when one of them, or a gradient, is not a number."""
    optimizer.zero_grad()
    losses = task.losses(batch)
    torch.autograd.backward(torch.stack(list(losses.values())).sum())
    moving = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    norm = gradient_norm(moving)
    values = {name: loss.item() for name, loss in losses.items()}
    if not math.isfinite(norm) or not all(map(math.isfinite, values.values())):
        told = ", ".join(f"{name} {value:g}" for name, value in values.items())
        raise TrainingDiverged(f"Training stopped at step {number + 1}: losses {told}, gradients {norm:g}.")
    if norm > task.plan.clip:
        for parameter in moving:
            if parameter.grad is not None:
                parameter.grad.mul_(task.plan.clip / norm)
    optimizer.step()
    return values


@torch.no_grad()
def judged(task: Task, folder: Folder, progress: Progress) -> dict[str, float]:
    """Scores on the validation split; the strictly best weights are kept."""
    task.learner.eval()
    scores = task.scores()
    if scores[task.plan.best] > progress.best:
        progress.best, progress.best_step = scores[task.plan.best], progress.step
        folder.keep("best", task, progress)
        replace_text(folder.path / "scores.json", json.dumps(scores, indent=2) + "\n")
    return scores


def factor(plan: Plan, step: int) -> float:
    """What the rate is multiplied by at a step."""
    return min(1.0, (step + 1) / plan.warmup) * 0.5 * (1 + math.cos(math.pi * step / plan.steps))


@dataclass(frozen=True)
class Steps:
    """A task's batches as a data set, so that worker processes can make them ahead."""

    task: Task

    def __getitem__(self, step: int) -> Any:  # noqa: ANN401  (the task's own)
        return self.task.batch(step)


def batches(task: Task, first: int, workers: int) -> Iterator[Any]:
    """The batches of the steps that are still to do."""
    loader: DataLoader[Any] = DataLoader(
        Steps(task),  # type: ignore[arg-type] # torch asks for a subclass of its own
        batch_size=None,
        sampler=range(first, task.plan.steps),
        num_workers=workers,
        generator=torch.Generator(),  # its own, so that the run's random numbers stay as they are
    )
    return iter(loader)


def bar(steps: Iterator[Any], task: Task, first: int) -> Iterator[Any]:
    """A progress bar."""
    return iter(tqdm(steps, desc=task.name, initial=first, total=task.plan.steps, unit="step"))


class Folder:
    """A run's folder."""

    def __init__(self, path: Path, task: Task) -> None:
        self.path, self.task = path, task

    @property
    def told(self) -> dict[str, Any]:
        """What must be equal for a run to go on."""
        return {"network": self.task.name, "plan": asdict(self.task.plan)}

    @property
    def digest(self) -> str:
        """Sha256 of name and plan."""
        return hashlib.sha256(json.dumps(self.told, sort_keys=True).encode()).hexdigest()

    def open(self, *, resume: bool) -> None:
        """Make it, or make sure that it holds this very run."""
        file = self.path / "plan.json"
        if not file.is_file():
            if self.path.is_dir() and any(self.path.iterdir()):
                raise DatasetInvalid(f"{self.path} is not empty and holds no run: choose another folder.")
            self.path.mkdir(parents=True, exist_ok=True)
            replace_text(file, json.dumps(self.told, indent=2) + "\n")
        elif not resume:
            raise DatasetInvalid(f"{self.path} holds a run already: add --resume, or choose another folder.")
        elif self.before(file) != self.told:
            raise DatasetInvalid(f"{file} is of another run: a resumed run keeps its network and plan.")

    def before(self, file: Path) -> object:
        """What the folder's run said of itself."""
        try:
            return json.loads(file.read_text())
        except ValueError as cause:
            raise DatasetInvalid(f"{file} is not JSON: {cause}.") from cause

    def save(self, task: Task, optimizer: Optimizer, progress: Progress) -> None:
        """A new state, whole or not at all; older ones go."""
        with new_state(self.path, progress) as state:
            write_safetensors(state / "learner.safetensors", weights_of(task.learner), {})
            write_safetensors(state / "optimizer.safetensors", packed(optimizer) | random_states(), {})

    def restore(self, task: Task, optimizer: Optimizer) -> Progress:
        """The newest state into both; a run that was killed before its first starts anew."""
        if not states(self.path):
            self.forget(after=0)
            return Progress()
        state = states(self.path)[-1]
        load_into(task.learner, read_safetensors(state / "learner.safetensors"), str(state))
        tensors: dict[str, Tensor] = read_safetensors(state / "optimizer.safetensors")
        unpack(optimizer, tensors)
        set_random_states(tensors)
        progress = Progress(**json.loads((state / "progress.json").read_text()))
        self.forget(after=progress.step)
        return progress

    def keep(self, name: str, task: Task, progress: Progress) -> None:
        """The weights alone, for use, with what they come from inside."""
        told = {
            "earshot": task.name,
            "plan": json.dumps(asdict(task.plan)),
            "plan_sha256": self.digest,
            "step": str(progress.step),
        }
        write_safetensors(self.path / f"{name}.safetensors", weights_of(task.network), told)

    def log(self, values: dict[str, float]) -> None:
        """A line."""
        with (self.path / "log.jsonl").open("a") as file:
            file.write(json.dumps({name: float(f"{value:.6g}") for name, value in values.items()}) + "\n")

    def forget(self, *, after: int) -> None:
        """What a killed run logged beyond its newest state: those steps are about to come again."""
        file = self.path / "log.jsonl"
        if file.is_file():
            whole = [line for line in file.read_text().splitlines() if line.endswith("}")]
            kept = [line for line in whole if json.loads(line)["step"] <= after]
            replace_text(file, "".join(f"{line}\n" for line in kept))

    def finish(self, progress: Progress) -> Path:
        """The best weights under their final name."""
        target = self.path / "weights.safetensors"
        hidden = self.path / f".{target.name}"
        try:
            shutil.copyfile(self.path / "best.safetensors", hidden)
            hidden.replace(target)
        finally:
            hidden.unlink(missing_ok=True)
        replace_text(self.path / "progress.json", json.dumps(asdict(progress)) + "\n")
        return target
