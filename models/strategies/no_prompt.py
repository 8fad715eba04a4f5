"""No-Prompt: everything that SAM finds in a frame, and of that, what AudioCLIP hears."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import parts
from models.audioclip.encoder import AudioClipEncoder
from models.audioclip.preprocess import image_input
from models.batching import Batcher
from models.mask_grid import Candidate, GridLimits, MaskGrid
from models.media import Window
from models.networks import Networks
from models.prompting import Prompting
from models.published_size import at_size, squashed
from models.recogniser import Recogniser
from models.segments import AUDIOCLIP_RATE, CLAP_RATE, quantised
from models.stages import stage
from models.strategies import FrameMasks, Instance, Segmenter
from models.strategies.gate import NO_MASK, UNSEEN, by_agreement, by_waveform, empty, united, unopposed
from models.strategies.options import NoPromptOptions
from models.weights import OBJECT

CROPS_PER_BATCH = 16
THRESHOLDS = {"minmax": 0.9, "softmax": 0.5}
SHARPNESS = 100.0  # of the softmax: AudioCLIP's own scale
MOST_OBJECTS = 1000  # of a frame: with the filters off there may be 12,288, which take minutes
LONGEST = 8  # sides of a crop: beyond, only the middle of the long one is looked at
NO_OBJECT = "SAM's grid found no object in this frame."
NAME = "sounding object"


@dataclass(frozen=True)
class Scored:
    """An object, its cosine with the sound, and what the score mode makes of it."""

    candidate: Candidate
    cosine: float
    score: float


class NoPrompt:
    """A `Segmenter`."""

    def __init__(
        self,
        prompting: Prompting,
        grid: MaskGrid,
        recogniser: Recogniser,
        encoder: AudioClipEncoder,
        batcher: Batcher,
        calibrated: float | None = None,
    ) -> None:
        self.prompting, self.grid, self.batcher = prompting, grid, batcher
        self.recogniser, self.encoder, self.calibrated = recogniser, encoder, calibrated

    def __call__(self, window: Window, options: NoPromptOptions) -> Iterator[FrameMasks]:
        """Frames in order; sounds and SAM's embeddings of the whole window in one batch each."""
        assert window.frames is not None, "the table of strategies says that this one needs pixels"
        frames = squashed(window.frames) if options.resolution == "paper" else window.frames
        verdicts = by_waveform(window.audio[AUDIOCLIP_RATE], options.gate)
        heard = unopposed(verdicts)
        sounds = iter(self.listen(window, heard, options))
        embeddings = iter(self.prompting.embed(frames[heard]) if heard else ())
        for frame, verdict in zip(frames, verdicts, strict=True):
            if verdict:
                yield empty(window.size, verdict)
            else:
                yield self.frame(frame, next(sounds), next(embeddings), window.size, options)

    def listen(self, window: Window, heard: Sequence[int], options: NoPromptOptions) -> Sequence[Tensor]:
        """A unit row for each of the seconds in `heard`."""
        if options.sound == "trained" or not heard:
            return list(self.recogniser.listen(window.audio[AUDIOCLIP_RATE][heard]))
        with stage("audio_encode"):
            return self.batcher(self._as_published, list(window.audio[CLAP_RATE][heard]))

    def frame(
        self,
        pixels: NDArray[np.uint8],
        sound: Tensor,
        embedding: Tensor,
        size: tuple[int, int],
        options: NoPromptOptions,
    ) -> FrameMasks:
        """One frame, at the size at which SAM saw it -> its answer at the size of the source."""
        scored = self.scored(pixels, self.objects(pixels, embedding, options), sound, options)
        if not scored:
            return empty(size, NO_OBJECT)
        most = np.array([max(each.cosine for each in scored)], np.float32)
        if verdict := by_agreement(most, options.gate, self.calibrated)[0]:
            return empty(size, verdict)
        threshold = options.thresholds.score
        threshold = THRESHOLDS[options.score] if threshold is None else threshold
        sounding = [instance(each, size) for each in scored if each.score > threshold]
        instances = tuple(each for each in sounding if each.mask.pixels().any())
        masks = (each.mask.pixels() for each in instances)
        return united(size, masks, instances=instances, otherwise=NO_MASK if sounding else UNSEEN)

    def objects(
        self, pixels: NDArray[np.uint8], embedding: Tensor, options: NoPromptOptions
    ) -> list[Candidate]:
        """What SAM finds in a frame [H, W, 3], best first."""
        limits = GridLimits(
            options.points_per_side,
            options.thresholds.quality,
            options.thresholds.stability,
            options.thresholds.overlap,
        )
        return self.grid(embedding, (pixels.shape[0], pixels.shape[1]), limits)[:MOST_OBJECTS]

    def scored(
        self, pixels: NDArray[np.uint8], objects: list[Candidate], sound: Tensor, options: NoPromptOptions
    ) -> list[Scored]:
        """Every object that can be cut out, in SAM's order."""
        rows: list[Tensor] = []
        shown: list[Candidate] = []
        for start in range(0, len(objects), CROPS_PER_BATCH):
            some = objects[start : start + CROPS_PER_BATCH]
            pictures = [picture(pixels, each, options, self.encoder) for each in some]
            shown += [each for each, image in zip(some, pictures, strict=True) if image is not None]
            with stage("image_encode"):
                rows += self.batcher(self._see, [image for image in pictures if image is not None])
        if not rows:
            return []
        cosines = (torch.stack(rows) @ sound).float().cpu().numpy()
        # As published, the scores of what could be cut out go to the first masks, whichever those are.
        owners = objects[: len(shown)] if options.crops == "paper" else shown
        scores = SCORES[options.score](cosines)
        return [Scored(*each) for each in zip(owners, cosines.tolist(), scores.tolist(), strict=True)]

    def _see(self, images: list[Tensor]) -> list[Tensor]:
        return list(self.encoder.pictures(torch.stack(images)))

    def _as_published(self, seconds: list[NDArray[np.float32]]) -> list[Tensor]:
        """Seconds at 48 kHz, as the tower takes 44.1 kHz, once and at +-1."""
        return list(self.encoder.audio(quantised(np.stack(seconds)), "paper", repeats=1))


def picture(
    pixels: NDArray[np.uint8], found: Candidate, options: NoPromptOptions, encoder: AudioClipEncoder
) -> Tensor | None:
    """An object on black, cut out of its frame [H, W, 3], as AudioCLIP's image [3, s, s]; None if no pixel is
    left of it."""
    x1, y1, x2, y2 = found.box
    if options.crops == "whole":
        x2, y2 = x2 + 1, y2 + 1
    elif x1 == x2 or y1 == y2:
        return None
    cut = middle(x1, x2, y2 - y1), middle(y1, y2, x2 - x1)
    across, down = slice(*cut[0]), slice(*cut[1])
    crop = pixels[down, across] * found.mask.pixels()[down, across, None]
    antialias = options.resolution == "source"
    return image_input(crop[None], encoder.resolution, antialias=antialias, device=encoder.device)[0]


def middle(start: int, stop: int, other: int) -> tuple[int, int]:
    """A side no longer than LONGEST times the other: AudioCLIP sees the central square alone, and a strip one
    pixel wide would be scaled up to hundreds of megabytes before it is cut."""
    spare = max(0, stop - start - LONGEST * other)
    return start + spare // 2, stop - (spare - spare // 2)


def stretched(cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """To 0..1 over the objects of a frame; equal ones, or a single one, are all the best."""
    low, high = cosines.min(), cosines.max()
    if low == high:
        return np.ones_like(cosines)
    scores: NDArray[np.float32] = (cosines - low) / (high - low)
    return scores


def softmax(cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shares of the objects of a frame, of 100 times the cosine."""
    weights = np.exp(SHARPNESS * (cosines - cosines.max()))
    shares: NDArray[np.float32] = (weights / weights.sum()).astype(np.float32)
    return shares


def unchanged(cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """As they are."""
    return cosines


SCORES = {"minmax": stretched, "softmax": softmax, "cosine": unchanged}


def instance(each: Scored, size: tuple[int, int]) -> Instance:
    """An object as part of the answer."""
    height, width = each.candidate.mask.size
    across, down = size[1] / width, size[0] / height
    x1, y1, x2, y2 = each.candidate.box
    return Instance(
        label=NAME,
        score=each.candidate.quality,
        audio_score=each.cosine,
        bbox=(x1 * across, y1 * down, (x2 + 1) * across, (y2 + 1) * down),
        mask=at_size(each.candidate.mask, size),
    )


def build(networks: Networks) -> Segmenter:
    """Needs SAM and AudioCLIP."""
    return NoPrompt(
        networks.shared(parts.prompting),
        networks.shared(parts.mask_grid),
        networks.shared(parts.audioclip_recogniser),
        networks.shared(parts.audioclip),
        networks.batcher,
        networks.weights.calibration("audioclip").get(OBJECT),
    )
