"""The loop: batches, steps, validation, states, and the pictures at the end. One process a device."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import nn
from torch.optim import Optimizer
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from models.datasets.clip import Clips
from models.errors import TrainingDiverged
from models.files import replace_text
from models.training.batches import SYNTH, Feed, Share, batch_of, open_clips
from models.training.learners import Learner, learner_for
from models.training.metrics import FrameIoU, PerImage
from models.training.plots import Sample, save_curves, save_samples
from models.training.recipes import Recipe
from models.training.runs import Log, Progress, Run, states
from models.training.starts import Files
from models.training.step import factor, optimizer_for, update
from models.weights import Weights

SAMPLES = 6  # rows of the grid at the end
SYNTH_JUDGED = 60  # clips of SynthAVS in a validation or a test


@dataclass(frozen=True)
class Setup:
    """What a recipe leaves open: on what to train, where to write, and on which devices."""

    data: str
    out: Path
    device: str = "auto"
    devices: int = 1
    precision: str = "32-true"
    """`32-true` as the paper, or `bf16-mixed`."""
    steps: int | None = None
    """In place of the recipe's epochs."""
    workers: int = 0
    save_every: int = 200
    resume: bool = False
    judged: int | None = None
    """Clips of a validation; None takes all, of SynthAVS a few."""
    files: Files = field(default_factory=Files)
    weights: Weights = field(default_factory=Weights)


class Training:
    """One run on one device of perhaps several."""

    def __init__(self, recipe: Recipe, setup: Setup) -> None:
        self.recipe, self.setup = recipe, setup
        self.fabric = fabric_for(setup)
        share = Share(self.fabric.global_rank, self.fabric.world_size)
        self.feed = Feed(setup.data, recipe, share, setup.workers)
        judged = setup.judged or (SYNTH_JUDGED if setup.data == SYNTH else None)
        self.validation, self.test = (
            open_clips(setup.data, recipe, split, judged) for split in ("val", "test")
        )
        self.steps = setup.steps or recipe.epochs * self.feed.steps_per_epoch
        self.run = Run(setup.out, recipe, setup.data, self.steps)

    @property
    def leads(self) -> bool:
        """Whether this process writes."""
        return self.fabric.is_global_zero

    def __call__(self) -> Path:
        """Train to the end; the file of weights that did best on the validation split."""
        torch.manual_seed(self.recipe.seed)
        learner = learner_for(self.recipe, self.setup.files, self.setup.weights)
        optimizer = optimizer_for(learner, self.recipe)
        if self.leads:
            self.run.open(resume=self.setup.resume)
        self.fabric.barrier()
        learner.to(self.fabric.device)
        for module in learner.modules():
            if isinstance(module, nn.Conv2d):  # a third faster on a processor
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # not in the stub
        progress = self.run.restore(learner, optimizer)
        module, wrapped = self.fabric.setup(learner, optimizer)
        self.loop(learner, module, cast(Optimizer, wrapped), progress)
        self.fabric.barrier()
        return self.finish(learner, progress)

    def loop(self, learner: Learner, module: Any, optimizer: Optimizer, progress: Progress) -> None:  # noqa: ANN401  (Fabric's wrapper)
        """Every step that is still to do."""
        log = Log(self.setup.out / "log.csv", progress.step) if self.leads else None
        board = SummaryWriter(str(self.setup.out / "tensorboard"), purge_step=progress.step) if log else None
        module.train()
        began = time.perf_counter()
        for batch in self.bar(self.feed.batches(progress.step, self.steps), progress.step):
            rate = factor(self.recipe, progress.step, self.steps)
            for group in optimizer.param_groups:
                group["lr"] = group["full_rate"] * rate
            batch = batch.to(self.fabric.device)
            try:
                outcome = update(module, optimizer, batch, self.recipe, self.fabric.backward)
            except TrainingDiverged as problem:
                raise TrainingDiverged(self.obituary(progress, str(problem))) from problem
            progress.step += 1
            values = {"loss": outcome.loss, "rate": self.recipe.rate * rate}
            if self.due(progress.step):
                values |= self.validated(learner, module, progress)
            now = time.perf_counter()
            progress.seconds, began = progress.seconds + now - began, now
            if log and board:
                epoch = progress.step / self.feed.steps_per_epoch
                log.write(step=progress.step, epoch=epoch, seconds=progress.seconds, **values)
                for name, value in values.items():
                    board.add_scalar(name, value, progress.step)
            if self.leads and (progress.step % self.setup.save_every == 0 or self.due(progress.step)):
                self.run.save(learner, optimizer, progress)
        if board:
            board.close()

    def due(self, step: int) -> bool:
        """Whether to validate after this step."""
        return step == self.steps or step % (self.recipe.validate_every or self.feed.steps_per_epoch) == 0

    def validated(self, learner: Learner, module: Any, progress: Progress) -> dict[str, float]:  # noqa: ANN401  (Fabric's wrapper)
        """Scores on the validation split; the strictly best weights are kept."""
        module.eval()
        scores = judged(learner, self.validation, self.recipe, self.fabric)
        module.train()
        if self.leads and scores[self.recipe.best] > progress.best:
            progress.best, progress.best_step = scores[self.recipe.best], progress.step
            self.run.keep("best", learner, progress)
        return {"val_miou": scores["mIoU"], "val_f": scores["F"], "val_miou_plus": scores["mIoU+"]}

    def bar(self, batches: Iterable[Any], first: int) -> Iterable[Any]:
        """A progress bar, of the process that leads."""
        name, quiet = self.recipe.name, not self.leads
        return tqdm(batches, desc=name, initial=first, total=self.steps, unit="step", disable=quiet)

    def obituary(self, progress: Progress, problem: str) -> str:
        """Where and why it ended, and what is left."""
        whole = states(self.run.folder)
        left = f"The last good state is {whole[-1]}" if whole else "No state was saved yet"
        return f"Training stopped at step {progress.step + 1} of {self.steps}. {problem} {left}."

    def finish(self, learner: Learner, progress: Progress) -> Path:
        """The best weights under their final name, their scores on the test split, and two pictures."""
        out = self.setup.out
        self.run.take_best(learner)
        learner.eval()
        scores = judged(learner, self.test, self.recipe, self.fabric)
        if self.leads:
            best = Progress(progress.best_step, progress.best, progress.best_step, progress.seconds)
            self.run.keep("weights", learner, best)
            told = {"split": "test", "clips": len(self.test), "protocol": PerImage().protocol, **scores}
            told["trained clips per second"] = progress.step * self.recipe.batch / progress.seconds
            replace_text(out / "test.json", json.dumps(told | asdict(best), indent=2) + "\n")
            title = f"{self.recipe.name}, {self.setup.data}, {self.steps} steps"
            save_curves(out / "curves.png", Log(out / "log.csv", self.steps).rows(), title)
            save_samples(out / "samples.png", samples(learner, self.validation, self.recipe))
        self.fabric.barrier()
        return out / "weights.safetensors"


def fabric_for(setup: Setup) -> Fabric:
    """One device, or several by data-parallel training. The text tower, and what TPAVI's authors left
    unused, never get gradients."""
    several = DDPStrategy(find_unused_parameters=True) if setup.devices > 1 else "auto"
    fabric = Fabric(
        accelerator=setup.device,
        devices=setup.devices,
        strategy=several,
        precision=setup.precision,  # type: ignore[arg-type]  # one of PRECISIONS, which are literals to Fabric
    )
    fabric.launch()
    return fabric


@torch.no_grad()
def judged(learner: Learner, clips: Clips, recipe: Recipe, fabric: Fabric) -> dict[str, float]:
    """`mIoU` and `F` as published, a clip a batch, and `mIoU+` of the frames that have a truth; the clips are
    dealt out to the devices. The learner is in evaluation mode."""
    published, positive = PerImage(), FrameIoU()
    mine = range(fabric.global_rank, len(clips), fabric.world_size)
    for number in mine:
        batch = batch_of([clips[number]], recipe).to(fabric.device)
        logits = learner(batch.images, batch.sound).logits
        published.update(logits[batch.judged], batch.truth[batch.judged])
        positive.update(logits[batch.judged] > 0, batch.truth[batch.judged])
    # Of more devices than clips some judge nothing, and their "not a number" would spoil the sum.
    here = published.result() if mine else {"mIoU": 0.0, "F": 0.0}
    sums = [here["mIoU"] * len(mine), here["F"] * len(mine), positive.total, positive.frames]
    everywhere = fabric.all_reduce(torch.tensor(sums, dtype=torch.float64), reduce_op="sum")
    iou, f, total, frames = torch.as_tensor(everywhere).tolist()
    return {"mIoU": iou / len(clips), "F": f / len(clips), "mIoU+": total / frames if frames else 0.0}


@torch.no_grad()
def samples(learner: Learner, clips: Clips, recipe: Recipe) -> list[Sample]:
    """A frame each of a few clips, spread over the split."""
    rows = []
    device = next(learner.parameters()).device
    for number in range(0, len(clips), max(1, len(clips) // SAMPLES)):
        clip = clips[number]
        frame = len(clip.frames) // 2 if all(clip.annotated) else 0
        batch = batch_of([clip], recipe).to(device)
        logits = learner(batch.images, batch.sound).logits[:, None]
        lit = F.interpolate(logits, clip.frames.shape[1:3], mode="bilinear")[frame, 0] > 0
        rows.append(Sample(clip.frames[frame], clip.expected[frame] != 0, lit.cpu().numpy()))
    return rows[:SAMPLES]
