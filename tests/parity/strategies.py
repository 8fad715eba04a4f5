"""points.npz, surgery.npz and data.npz once more, through what strategies run with `paper` options.

The other groups compare the parts. This one goes in where a strategy does, at frames and seconds of sound,
with the options of its preset, so that a part that is right and wrongly used fails here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from models.audioclip.encoder import AudioClipEncoder
from models.audioclip.tokenizer import Tokenizer
from models.batching import Batcher
from models.mask_grid import Candidate
from models.media import Media, Sampling, Window, windows
from models.packed_masks import PackedMask
from models.segments import AUDIOCLIP_RATE, CLAP_RATE, quantised
from models.sound_maps import SoundMapper
from models.strategies import STRATEGIES
from models.strategies.heatmap_box_prompt import boxes, prompts_of
from models.strategies.no_prompt import picture
from models.strategies.options import HeatmapThreshold, PointThreshold
from models.strategies.point_prompt import prompt
from tests.parity.data import files
from tests.parity.golden import Golden
from tests.parity.row import HEATMAP, Row, absolute, exact, relative
from tests.parity.surgery import sampled

SIZE = 224
FINDERS = {"top": "global", "peak": "local", "dense": "dense"}
COMPONENTS = {
    "get_multi_box": "all",
    "get_single_box_maxarea": "largest",
    "get_single_box_maxscore": "brightest",
}


def rows(golden: Golden) -> Iterator[Row]:
    """Point-Prompt and Heatmap-Box-Prompt from stored maps and images, No-Prompt's crops, all sounds."""
    yield from prompts(golden)
    yield from maps(golden)
    encoder = AudioClipEncoder(golden.audioclip, Tokenizer())
    for path in files(golden, "img_*.png"):
        yield crop(golden, path, encoder)
    for path in files(golden, "wav/*.wav"):
        yield from sound(golden, path)


def prompts(golden: Golden) -> Iterator[Row]:
    """What SAM is asked at each stored map."""
    want = golden.arrays("points")
    stored = torch.from_numpy(want["maps7"])[:, None]
    heat = F.interpolate(stored, (SIZE, SIZE), mode="bilinear", align_corners=False)[:, 0].numpy()
    point, box = (STRATEGIES[name].presets["paper"] for name in ("point-prompt", "heatmap-box-prompt"))
    for name in want:
        kind = name.split("_")[0]
        if kind in FINDERS:
            _, number, *threshold = name.split("_")
            given = PointThreshold(*map(float, threshold))
            asked = prompt(
                heat[int(number)], (SIZE, SIZE), replace(point, points=FINDERS[kind], thresholds=given)
            )
            yield exact(f"points/{name}", np.column_stack([asked.points, asked.labels]), want[name])
        elif (component := name.rsplit("_", 1)[0]) in COMPONENTS:
            options = replace(box, component=COMPONENTS[component], thresholds=HeatmapThreshold(0.55))
            one = heat[int(name.rsplit("_", 1)[1])]
            asked = [each.box for each in prompts_of(one, (SIZE, SIZE), options)]
            yield exact(f"points/{name}", np.array(asked).reshape(-1, 4), want[name])
            assert len(boxes(one, options)) == len(asked)


def maps(golden: Golden) -> Iterator[Row]:
    """Heat maps of stored images and sounds, by surgery or plain, reversed or not."""
    want = golden.arrays("surgery")
    mapper = SoundMapper(AudioClipEncoder(golden.audioclip, Tokenizer()), Batcher())
    seconds = golden.waves.numpy()
    images = golden.det.images(n=len(seconds), size=SIZE)
    scale = STRATEGIES["point-prompt"].presets["paper"].audio_scale
    for kind in ("plain", "surgery"):
        for name in ("raw", "rev"):
            made = mapper.of_images(
                images, seconds, surgery=kind == "surgery", reverse=name == "rev", scale=scale
            )
            for i, heat in enumerate(made.heat):
                stored = want[f"heat224_{kind}_{name}_{i}"]
                ours = sampled(heat, SIZE // len(stored))
                yield absolute(f"surgery/heat224_{kind}_{name}_{i}", ours, stored, HEATMAP)


def crop(golden: Golden, path: Path, encoder: AudioClipEncoder) -> Row:
    """A picture as an object that fills its frame but the row and column that a published crop loses."""
    with Image.open(path) as image:
        pixels = np.pad(np.array(image.convert("RGB")), ((0, 1), (0, 1), (0, 0)))
    height, width = pixels.shape[:2]
    whole = PackedMask.of(np.ones((height, width), bool))
    filled = Candidate((0, 0, width - 1, height - 1), 1.0, whole)
    ours = picture(pixels, filled, STRATEGIES["no-prompt"].presets["paper"], encoder)
    assert ours is not None
    name = f"img_noaa_{path.stem.removeprefix('img_')}"
    stored = golden.arrays("data")[name]
    step = ours.shape[-1] // stored.shape[-1]
    return relative(f"data/{name}", ours[:, ::step, ::step], stored)


def sound(golden: Golden, path: Path) -> Iterator[Row]:
    """What a window holds of a file, at the rate of either network."""
    want, (name, _, length) = golden.arrays("data"), path.stem.split("_")
    window = five_seconds(golden, path)
    for kind, rate in (("44k", AUDIOCLIP_RATE), ("48k", CLAP_RATE)):
        seconds = window.audio[rate] if kind == "44k" else quantised(window.audio[rate])
        stored = want[f"{name}{length}_{kind}_sub"]
        step = -(-rate // stored.shape[1])
        yield relative(f"data/{name}{length}_{kind}_sub", seconds[:, ::step], stored)


def five_seconds(golden: Golden, path: Path) -> Window:
    """The one window of a clip as AVSBench ships them: five pictures and a sound file."""
    picture = files(golden, "img_*.png")[0]
    media = Media(frames=(picture,) * 5, audio=path)
    (window,) = windows(media, Sampling(mode="avsbench"), rates=(AUDIOCLIP_RATE, CLAP_RATE))
    return window
