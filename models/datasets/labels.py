"""Frames, masks and wavs as they really lie on disk: every way of storing them that AVSBench copies have."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soxr
from PIL import Image, UnidentifiedImageError

from models.datasets.clip import Pixels, Sound
from models.errors import DatasetInvalid

CLASSES = 71  # of AVSS, the background included
LEVELS = {"uint8": (128.0, 128.0), "int16": (0.0, 2.0**15), "int32": (0.0, 2.0**31)}  # of 0 and of 1
DARK = 32  # a palette colour none of whose channels reaches this is the background


def palette(classes: int = CLASSES) -> Pixels:
    """The colours of AVSS label pictures, uint8 [classes, 3]: a class's bits dealt to R, G, B in turn."""
    colours = np.zeros((classes, 3), np.uint8)
    for label in range(classes):
        for bit in range(8):
            for channel in range(3):
                colours[label, channel] |= ((label >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours


def open_picture(path: Path) -> Image.Image:
    """A picture, fully decoded."""
    try:
        with Image.open(path) as picture:
            picture.load()
            return picture
    except FileNotFoundError:
        raise DatasetInvalid(f"{path} is missing.") from None
    except UnidentifiedImageError:
        raise DatasetInvalid(f"{path} is not a readable picture.") from None
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as cause:
        raise DatasetInvalid(f"{path} is not a readable picture: {cause}.") from cause


def read_frame(path: Path) -> Pixels:
    """RGB uint8 [H, W, 3]."""
    return np.asarray(open_picture(path).convert("RGB"))


def read_mask(path: Path) -> Pixels:
    """A binary mask as uint8 [H, W] of 0 and 1, however it is stored: bits, 0/1, 0/255, a palette or colours.

    Grey values off 0 and full, left by resampling, fall to the nearer of the two.
    """
    picture = open_picture(path)
    if picture.mode == "1":
        return np.asarray(picture).astype(np.uint8)
    if picture.mode == "P":
        colours = np.asarray(picture.convert("RGB")).max(axis=2)
        indices = np.asarray(picture)
        # A palette that paints everything (nearly) black says nothing: then the indices themselves count.
        lit = colours >= DARK if (colours >= DARK).any() else indices > (127 if indices.max() > 1 else 0)
        return lit.astype(np.uint8)
    grey = np.asarray(picture.convert("RGB") if "A" in picture.mode else picture)
    grey = grey.max(axis=2) if grey.ndim == 3 else grey
    return (grey > (127 if grey.max() > 1 else 0)).astype(np.uint8)


def read_classes(path: Path, classes: int) -> Pixels:
    """A class map as uint8 [H, W]; labels and colours that name no class become background."""
    picture = open_picture(path)
    if picture.mode in ("1", "L", "P", "I", "I;16"):
        labels = np.asarray(picture).astype(np.int64)
        return np.where(labels < classes, labels, 0).astype(np.uint8)
    weights = np.array([1 << 16, 1 << 8, 1])
    colours = np.asarray(picture.convert("RGB")).astype(np.int64) @ weights
    known = palette(classes).astype(np.int64) @ weights
    order = np.argsort(known)
    place = np.minimum(np.searchsorted(known[order], colours), classes - 1)
    return np.where(known[order][place] == colours, order[place], 0).astype(np.uint8)


def read_wav(path: Path, rate: int | None = None) -> tuple[Sound, int]:
    """Mono float32 [samples] in [-1, 1] at `rate` Hz (else at the file's own), and that rate.

    As the paper's loader: channels are averaged first, then resampled (soxr, high quality).
    """
    if not path.is_file():
        raise DatasetInvalid(f"{path} is missing.")
    try:
        with av.open(path) as container:
            if not container.streams.audio:
                raise DatasetInvalid(f"{path} holds no sound.")
            frames = list(container.decode(container.streams.audio[0]))
    except (av.FFmpegError, ValueError) as cause:
        why = getattr(cause, "strerror", None) or cause
        raise DatasetInvalid(f"{path} is not a readable sound file: {why}.") from cause
    if not frames:
        raise DatasetInvalid(f"{path} holds no sound.")
    sound = np.concatenate([_mono(frame) for frame in frames])
    own = frames[0].sample_rate
    if rate is None or rate == own:
        return sound, own
    return np.asarray(soxr.resample(sound, own, rate, quality="HQ"), np.float32), rate


def _mono(frame: av.AudioFrame) -> Sound:
    """One decoded frame as the mean of its channels."""
    stored = frame.to_ndarray()
    samples = stored if frame.format.is_planar else stored.reshape(-1, frame.layout.nb_channels).T
    middle, full = LEVELS.get(samples.dtype.name, (0.0, 1.0))
    return np.asarray(((samples - np.float64(middle)) / full).mean(axis=0), np.float32)


def write_wav(path: Path, sound: Sound, rate: int) -> None:
    """Mono float32 in [-1, 1) as 16-bit samples."""
    samples = np.clip(np.rint(sound * 32_768), -32_768, 32_767).astype(np.int16)
    with av.open(path, "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
