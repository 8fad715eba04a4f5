"""The strategies on a clip of five frames, as they run and as the published code would run the same networks.

The published way is a frame at a time with nothing remembered, and in Box-Prompt one whole pass of Grounding
DINO for each name. Both ways run here, with the same options, random weights and kind of frames. `share_*` is
what each stage takes of the time; what is missing to 1 is images, points, boxes and masks made ready.
`peak_mib` is the process's, weights included, up to the end of that way; `grown_mib` what it grew by at most
while ours ran. `frames_lit` of the five got a mask: one that a gate or a detector empties costs less. A frame
costs the published way the same wherever it stands: at full size `frames_run` of the five are run, and the
seconds of five are computed. `cpu_seconds` are those of all threads: with OMP_NUM_THREADS=1, which spares
threads that wait for each other, they tell more than `seconds` on a machine that does other things as well.
`first_seconds` is one frame, our way, before all others.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from models import clap, grounding_dino, grounding_dino_configs, parts, sam
from models.audioclip import AudioCLIP
from models.audioclip.encoder import AudioClipEncoder
from models.audioclip.tokenizer import Tokenizer
from models.embedding_cache import CACHE_BYTES
from models.media import Window
from models.networks import Networks
from models.stages import STAGES, measured
from models.strategies import STRATEGIES, Segmenter
from models.strategies.options import BoxPromptOptions, GateOptions, NoPromptOptions
from models.suppliers import Detection
from models.text_tokens import tiny_bert, tiny_roberta
from models.weights import Identity, Weights
from tests.bench.timing import MIB, Timing, device, growth, peak
from tests.tiny_networks import firm, seeing, tiny_networks, window

SIZE = (360, 640)
FRAMES = 5
NAMES = 2  # that Box-Prompt looks for in each frame
NOWHERE = Path("no weights")
OPEN = GateOptions(noise=False)  # random networks hear noise in anything
COMPARED = ("random-sam", "point-prompt", "heatmap-box-prompt", "box-prompt", "no-prompt")
OPTIONS: Mapping[str, Any] = {
    **{name: STRATEGIES[name].presets["best"] for name in COMPARED},
    "no-prompt": NoPromptOptions(points_per_side=8, gate=OPEN),
    "box-prompt": BoxPromptOptions(vocabulary="avsbench", top_k=NAMES, gate=OPEN),
}


class Given(Networks):
    """Networks made here instead of loaded. `forgetful` ones are asked the published way."""

    def __init__(self, networks: Mapping[str, Any], *, forgetful: bool) -> None:
        super().__init__(device(), Weights(NOWHERE, tiny=NOWHERE))  # where nothing is calibrated
        self.networks = dict(networks)
        if "sam" in networks:
            keep = 0 if forgetful else CACHE_BYTES
            self.networks["sam"] = sam.Sam(networks["sam"], identity="random", cache_bytes=keep)
        if "grounding-dino" in networks and forgetful:
            self.networks["grounding-dino"] = OneByOne(networks["grounding-dino"])

    def __getitem__(self, name: str) -> Any:
        return self.networks[name]

    def identity(self, name: str) -> Identity:
        """Of no file."""
        return Identity("random", "", "", "published")

    @cached_property
    def encoder(self) -> AudioClipEncoder:
        return AudioClipEncoder(self.networks["audioclip"], Tokenizer())

    def shared(self, build: Any) -> Any:
        """AudioCLIP's tokenizer would be a file of weights."""
        return self.encoder if build is parts.audioclip else super().shared(build)


class OneByOne:
    """Grounding DINO as the published code calls it: a whole pass for each frame and each name, and nothing
    remembered between them."""

    def __init__(self, detector: grounding_dino.GroundingDino) -> None:
        self.detector = detector

    def detect(
        self, frames: NDArray[np.uint8], labels: Sequence[Sequence[str]], threshold: float
    ) -> list[list[Detection]]:
        """For each frame its boxes, label after label."""
        return [
            [box for label in asked for box in self.alone(frame, label, threshold)]
            for frame, asked in zip(frames, labels, strict=True)
        ]

    def alone(self, frame: NDArray[np.uint8], label: str, threshold: float) -> list[Detection]:
        """One pass."""
        self.detector.forget()
        return self.detector.detect(frame[None], [[label]], threshold)[0]


def full_grounding_dino() -> grounding_dino.GroundingDino:
    """Swin-T; it spells, as no vocabulary is here."""
    network = grounding_dino_configs.build("grounding-dino-swin-t").to(device())
    return grounding_dino.GroundingDino(network, tiny_bert(256), grounding_dino.PUBLISHED, identity="random")


FULL_SIZE: Mapping[str, Callable[[], Any]] = {
    "audioclip": lambda: AudioCLIP().eval().requires_grad_(False).to(device()),
    "sam": lambda: firm(seeing(sam.build("sam-vit-b"))).to(device()),
    "grounding-dino": full_grounding_dino,
    "clap": lambda: clap.Clap(clap.build("clap-630k-audioset-best").to(device()), tiny_roberta(77)),
}


def tiny(name: str) -> Iterator[Timing]:
    """The tiny family, three clips each; No-Prompt asks at 8 x 8 points."""
    with tempfile.TemporaryDirectory() as folder:
        made = tiny_networks(Path(folder))
        family = {network: made[network] for network in STRATEGIES[name].networks}
    if "sam" in family:
        family["sam"] = family["sam"].network
    yield from compared(f"{name}-tiny", ways_of(name, family), OPTIONS[name], repeats=3, frames_run=FRAMES)


def full_size(name: str) -> Iterator[Timing]:
    """SAM ViT-B, Grounding DINO Swin-T, AudioCLIP and CLAP in full size. On a CPU one clip our way, and one
    frame the published way."""
    family = {network: FULL_SIZE[network]() for network in STRATEGIES[name].networks}
    repeats, frames_run = (1, 1) if device().type == "cpu" else (3, FRAMES)
    yield from compared(f"{name}-vit-b", ways_of(name, family), OPTIONS[name], repeats, frames_run)


def ways_of(name: str, networks: Mapping[str, Any]) -> tuple[Segmenter, Segmenter]:
    """Ours and the published one."""
    build = import_module(STRATEGIES[name].module).build
    return build(Given(networks, forgetful=False)), build(Given(networks, forgetful=True))


def compared(
    name: str, ways: tuple[Segmenter, Segmenter], options: Any, repeats: int, frames_run: int
) -> tuple[Timing, Timing]:
    """Both ways in turn on clips that nobody has seen before, after one frame our way that is not counted.
    The published way's row says how many times longer it took.

    In turn, so that what else the machine does falls on both. `again_seconds`: ours for a clip just seen,
    `times_again` how many times longer the published way took.
    """
    ours, theirs = ways
    cold = timed(ours, options, alone(clip(0))[:1]).seconds
    runs: tuple[list[Run], list[Run]] = [], []
    peaks: list[int] = []
    again, stages, grown, lit = [], dict.fromkeys(STAGES, 0.0), 0.0, FRAMES
    for seed in range(1, repeats + 1):
        five = clip(seed)
        with measured() as spent, growth() as more:
            runs[0].append(timed(ours, options, [five]))
        peaks.append(peak())
        stages = {stage: stages[stage] + spent.get(stage, 0.0) for stage in STAGES}
        grown, lit = max(grown, more[0]), min(lit, runs[0][-1].lit)
        again.append(timed(ours, options, [five]).seconds)
        runs[1].append(timed(theirs, options, alone(five)[:frames_run]))
    size: dict[str, float | int | str] = {"frames": FRAMES, "width": SIZE[1], "height": SIZE[0]}
    mine, published = (median(run.seconds for run in each) for each in runs)
    cpu, theirs_cpu = (median(run.cpu_seconds for run in each) for each in runs)
    published, theirs_cpu = (each * FRAMES / frames_run for each in (published, theirs_cpu))
    details: dict[str, float | int | str] = {
        f"share_{stage}": round(spent / sum(run.seconds for run in runs[0]), 3)
        for stage, spent in stages.items()
        if spent
    }
    details |= {"again_seconds": round(median(again), 6), "cpu_seconds": round(cpu, 6)}
    details |= {"grown_mib": round(grown, 1), "frames_lit": lit}
    ratio = {
        "times_ours": round(published / mine, 2),
        "cpu_seconds": round(theirs_cpu, 6),
        "times_our_cpu": round(theirs_cpu / cpu, 2),
        "times_again": round(published / median(again), 1),
        "frames_run": frames_run,
    }
    return (
        Timing(name, round(mine, 6), round(cold, 6), round(peaks[0] / MIB, 1), size | details),
        Timing(
            f"{name}-as-published", round(published, 6), round(cold, 6), round(peak() / MIB, 1), size | ratio
        ),
    )


class Run(NamedTuple):
    """What some windows took, and how many of their frames got a mask."""

    seconds: float
    cpu_seconds: float
    lit: int


def timed(segmenter: Segmenter, options: Any, windows: Sequence[Window]) -> Run:
    """These windows, one after the other."""
    began, cpu, lit = time.perf_counter(), time.process_time(), 0
    for each in windows:
        for answer in segmenter(each, options):
            lit += answer.reason is None
    if device().type == "cuda":
        torch.cuda.synchronize()
    return Run(time.perf_counter() - began, time.process_time() - cpu, lit)


def clip(seed: int) -> Window:
    """Five loud frames."""
    return window(*[0.5] * FRAMES, size=SIZE, seed=seed)


def alone(five: Window) -> list[Window]:
    """A window for each frame."""
    assert five.frames is not None
    return [
        replace(
            five,
            timestamps=(five.timestamps[i],),
            indices=(five.indices[i],),
            audio_windows=(five.audio_windows[i],),
            frames=five.frames[[i]],
            audio={rate: sound[[i]] for rate, sound in five.audio.items()},
        )
        for i in range(len(five.frames))
    ]
