"""audioclip_audio.npz: the audio tower, step by step, for two waves at both scales."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.audioclip.audio import AudioScale, AudioTower, scaled
from models.audioclip.fbsp import tightness
from tests.parity.golden import Arrays, Golden
from tests.parity.row import Row, exact, relative, statistics

SECONDS = 5  # each second is tiled to the five that the network hears
STAGES = ("layer1", "att1", "layer2", "att2", "layer3", "att3", "layer4", "att4", "att5")
SCALES: dict[str, AudioScale] = {"x1": "paper", "x32768": "int16"}


@torch.inference_mode()
def rows(golden: Golden) -> Iterator[Row]:
    """`feat_rows` says which wave and scale each row of the stored features has."""
    want, tower, waves = golden.arrays("audioclip_audio"), golden.audioclip.audio, golden.waves[:, None]
    yield exact("wave", waves[:, 0], want["wave"])
    yield relative("window", tower.window, want["window"])
    yield from front_end(tower, waves[:1].tile(SECONDS), want, golden)
    tiled, asked = waves.tile(SECONDS), [str(label).split() for label in want["feat_rows"]]
    ours = [f"w{wave} {scale}" for scale in SCALES for wave in range(len(waves))]
    yield exact("feat_rows", np.array(ours), want["feat_rows"])
    seen = [observed(tower, tiled[[int(wave[1:])]], SCALES[scale]) for wave, scale in asked]
    maps = {name: torch.cat([row[name] for row in seen]) for name in seen[0]}
    yield relative("features", maps["features"], want["features"])
    yield relative("features_1s", tower(waves, "paper"), want["features_1s"])
    yield from decibels(maps["decibels"], want, golden)
    for name in ("stem", *STAGES):
        stored = name.replace("att", "gate")
        yield exact(f"{stored}_shape", np.array(maps[name].shape), want[f"{stored}_shape"])
        yield statistics(f"{stored}_stats", each(golden, maps[name]), want[f"{stored}_stats"])
    yield relative("gate5", maps["att5"].flatten(1), want["gate5"])


def front_end(tower: AudioTower, wave: Tensor, want: Arrays, golden: Golden) -> Iterator[Row]:
    """Scaling, frames, filters and spectrum of the first wave at +-1."""
    x = scaled(wave, "paper")
    yield statistics("scaled_stats", golden.det.stats(x), want["scaled_stats"])
    frames = tower.frames(x)
    yield exact("frames_shape", np.array(frames.shape), want["frames_shape"])
    first, sixth, last = 0, 5, frames.shape[1] - 1
    yield relative("frames_0_5_391", frames[0, [first, sixth, last]], want["frames_0_5_391"])
    kernel = tower.fbsp.kernel().permute(2, 0, 1)
    yield exact("fbsp_rows", want["fbsp_rows"], want["fbsp_rows"])  # which filters the file holds: an input
    yield relative("fbsp_weight_rows", kernel[want["fbsp_rows"]], want["fbsp_weight_rows"])
    yield relative("loss_ttf", tightness(tower.fbsp.kernel()), want["loss_ttf"])
    spectrum = tower.fbsp(frames).permute(0, 2, 3, 1)
    yield exact("spec_shape", np.array(spectrum.shape), want["spec_shape"])
    yield relative("spec_sub", spectrum[0, ::64, ::32], want["spec_sub"])


def decibels(ours: Tensor, want: Arrays, golden: Golden) -> Iterator[Row]:
    """What the ResNeXt sees; the stored part's strides follow from its size."""
    yield exact("xdb_shape", np.array(ours[:, None].shape), want["xdb_shape"])
    yield relative("xdb_sub", ours[:, :, ::16, ::16], want["xdb_sub"])
    yield statistics("xdb_stats", each(golden, ours), want["xdb_stats"])


def each(golden: Golden, maps: Sequence[Any] | Tensor) -> np.ndarray[Any, Any]:
    """Statistics of every row of a batch."""
    return np.stack([golden.det.stats(row) for row in maps])


def observed(tower: AudioTower, wave: Tensor, scale: AudioScale) -> dict[str, Tensor]:
    """One forward pass, and what went through on the way: the input of conv1, the stem, stages and gates."""
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        return lambda _module, _inputs, output: seen.__setitem__(name, output)

    def note_inputs(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen["decibels"] = inputs[0]

    def note_stem(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen["stem"] = inputs[0]

    def note_gated(gate: str, layer: str) -> Any:
        return lambda _module, _inputs, output: seen.__setitem__(layer, seen[layer] * output)

    hooks = [getattr(tower, name).register_forward_hook(note(name)) for name in STAGES]
    # What the file calls a layer is its output after the gate.
    hooks += [
        getattr(tower, f"att{i}").register_forward_hook(note_gated(f"att{i}", f"layer{i}"))
        for i in range(1, 5)
    ]
    hooks += [tower.conv1.register_forward_pre_hook(note_inputs)]
    hooks += [tower.layer1.register_forward_pre_hook(note_stem)]
    try:
        seen["features"] = tower(wave, scale)
    finally:
        for hook in hooks:
            hook.remove()
    return seen
