"""data.npz: sound in segments, images through AudioCLIP's transform, and what PIL's modes do to masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from models.audioclip.preprocess import image_input
from models.datasets.labels import read_wav
from models.segments import AUDIOCLIP_RATE, CLAP_RATE, SECONDS, Wave, resampled, whole_seconds
from tests.parity.golden import DEFAULT, Arrays, Golden
from tests.parity.row import Row, absolute, exact, relative, statistics

FULL_SCALE = 32_767  # of int16
LARGEST_MASK = 256  # pixels; the side of the stored masks is found below this


def segments_44k(wave: Wave, rate: int) -> Wave:
    """What AC-FPN and the heat maps hear: [samples] or [samples, channels] -> [5, 1, 220500].

    Each second is repeated five times, because AudioCLIP was trained on five seconds.
    """
    seconds = whole_seconds(resampled(wave, rate, AUDIOCLIP_RATE), AUDIOCLIP_RATE)
    return np.tile(seconds, (1, SECONDS))[:, None]


def segments_48k(wave: Wave, rate: int) -> Wave:
    """What No-Prompt and Box-Prompt hear, as int16: [samples] or [samples, channels] -> [5, 1, 48000]."""
    seconds = whole_seconds(resampled(wave, rate, CLAP_RATE), CLAP_RATE)
    rounded = (np.clip(seconds, -1, 1) * FULL_SCALE).astype(np.int16).astype(np.float32) / FULL_SCALE
    return rounded[:, None].astype(np.float32)


LOADERS: dict[str, tuple[Callable[[Wave, int], Wave], int]] = {
    "44k": (segments_44k, AUDIOCLIP_RATE),
    "48k": (segments_48k, CLAP_RATE),
}


def rows(golden: Golden) -> Iterator[Row]:
    """The folder holds the sounds and pictures too; one that it has not got is the project's."""
    want = golden.arrays("data")
    # A file `a16k_mono_5s.wav` is called `a16k5s` in the arrays' names.
    sounds = {path.stem.split("_")[0] + path.stem.split("_")[-1]: path for path in files(golden, "wav/*.wav")}
    pictures = {path.stem.removeprefix("img_"): path for path in files(golden, "img_*.png")}
    for name in stored(want, "", "_44k_shape"):
        yield from sound_rows(golden, want, sounds[name], name)
    for name in stored(want, "pix_", ""):
        yield from image_rows(want, pictures[name], name)
    yield from mask_rows(want)


def files(golden: Golden, pattern: str) -> list[Path]:
    """The project's first, so that the folder's take their places."""
    return [*sorted(DEFAULT.glob(pattern)), *sorted(golden.folder.glob(pattern))]


def stored(want: Arrays, before: str, after: str) -> list[str]:
    """What stands between `before` and `after` in the names of the arrays."""
    names = [name for name in want if name.startswith(before) and name.endswith(after)]
    return [name.removeprefix(before).removesuffix(after) for name in names]


def sound_rows(golden: Golden, want: Arrays, path: Path, name: str) -> Iterator[Row]:
    """Both loaders' segments: every n-th sample of the first second, and statistics of all."""
    wave, rate = read_wav(path)
    for loader, (cut, target) in LOADERS.items():
        ours = cut(wave, rate)
        kept = want[f"{name}_{loader}_sub"]
        step = -(-target // kept.shape[1])
        yield exact(f"{name}_{loader}_shape", np.array(ours.shape), want[f"{name}_{loader}_shape"])
        yield relative(f"{name}_{loader}_sub", ours[:, 0, :target:step], kept)
        stats = np.stack([golden.det.stats(segment) for segment in ours])
        yield statistics(f"{name}_{loader}_stats", stats, want[f"{name}_{loader}_stats"])


def image_rows(want: Arrays, path: Path, name: str) -> Iterator[Row]:
    """A picture's own pixels, and the transform with and without smoothing."""
    with Image.open(path) as picture:
        pixels = np.array(picture.convert("RGB"))
    step = round(pixels.shape[0] / want[f"pix_{name}"].shape[0])
    yield exact(f"pix_{name}", pixels[::step, ::step], want[f"pix_{name}"])
    for kind, antialias in (("img", True), ("img_noaa", False)):
        ours, kept = image_input(pixels[None], antialias=antialias)[0], want[f"{kind}_{name}"]
        step = ours.shape[-1] // kept.shape[-1]
        yield relative(f"{kind}_{name}", ours[:, ::step, ::step], kept)


def mask_rows(want: Arrays) -> Iterator[Row]:
    """Channels, least, largest and mean value of one mask, stored as 0/255 or 0/1 and opened in two modes.

    The file holds the mask's share of ones but not the mask: a row of its size with as many ones stands in.
    That a mask of 0/1 vanishes in mode 1 is PIL's dithering, which the published loaders trip over and ours,
    `models.datasets.labels.read_mask`, avoids.
    """
    mask = some_mask(float(want["mask_L255_mode1"][3]))
    for largest in (255, 1):
        picture = Image.fromarray(mask * np.uint8(largest))
        for mode, full in (("1", 1), ("P", 255)):
            seen = np.asarray(picture.convert(mode)).astype(np.float64) / full
            summary = [1.0, seen.min(), seen.max(), seen.mean()]
            yield absolute(f"mask_L{largest}_mode{mode}", summary, want[f"mask_L{largest}_mode{mode}"], 1e-6)


def some_mask(share: float) -> np.ndarray:
    """The square of zeros and ones whose share of ones is nearest, the ones as evenly spread as can be."""
    side = min(range(2, LARGEST_MASK + 1), key=lambda side: abs(round(share * side**2) / side**2 - share))
    ramp = np.arange(side**2 + 1) * round(share * side**2) // side**2
    return np.diff(ramp).astype(np.uint8).reshape(side, side)
