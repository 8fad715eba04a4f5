"""SAM for a window: all frames through its encoder in one batch, prompts of many frames through its decoder
together, and of each prompt only the best mask ever brought to full size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.batching import Batcher
from models.stages import stage
from models.suppliers import MASK_THRESHOLD, PROMPTS_PER_BATCH, Prompt, PromptedSegmenter

Size = tuple[int, int]


@dataclass(frozen=True)
class Segment:
    """The best mask of a prompt, bool [H, W], and the IoU that SAM predicts for it."""

    mask: NDArray[np.bool_]
    quality: float


@dataclass(frozen=True)
class Question:
    """The prompts of one frame, with its embedding; `prompt.frame` means nothing here."""

    embedding: Tensor
    prompts: tuple[Prompt, ...]
    size: Size
    multimask: bool


class Prompting:
    """Asks SAM, through the batcher, so that windows in other threads share its batches and its cache."""

    def __init__(self, sam: PromptedSegmenter, batcher: Batcher) -> None:
        self.sam, self.batcher = sam, batcher

    def embed(self, frames: NDArray[np.uint8]) -> list[Tensor]:
        """RGB uint8 [n, H, W, 3] -> an embedding a frame; those seen before cost nothing."""
        with stage("image_encode"):
            return self.batcher(self._embed, list(frames), frames.shape[1:])

    def __call__(
        self, frames: NDArray[np.uint8], prompts: Sequence[Sequence[Prompt]], *, multimask: bool = True
    ) -> Iterator[Iterator[Segment]]:
        """For each frame its prompts' best masks, in order, each made at full size when it is asked for.
        Frames without a prompt are not encoded."""
        size = (frames.shape[1], frames.shape[2])
        asked = [index for index, mine in enumerate(prompts) if mine]
        embeddings = dict(zip(asked, self.embed(frames[asked]) if asked else (), strict=True))
        questions = [
            Question(embeddings[index], tuple(mine), size, multimask) if mine else None
            for index, mine in enumerate(prompts)
        ]
        for chunk in _chunks(questions):
            with stage("mask_decode"):
                some = [question for question in chunk if question is not None]
                answers = iter(self.batcher(self._decode, some, (size, multimask)))
            for question in chunk:
                yield iter(()) if question is None else self._segments(*next(answers), size)

    def _embed(self, frames: list[NDArray[np.uint8]]) -> list[Tensor]:
        return list(self.sam.embed(np.stack(frames)))

    @torch.inference_mode()
    def _decode(self, questions: list[Question]) -> list[tuple[Tensor, Tensor]]:
        """Low-resolution logits [p, s, s] of the best mask of each prompt, and its quality [p]."""
        embeddings = torch.stack([question.embedding for question in questions])
        prompts = [
            replace(prompt, frame=index)
            for index, question in enumerate(questions)
            for prompt in question.prompts
        ]
        first = questions[0]
        logits, scores = self.sam.decode(embeddings, first.size, prompts, multimask=first.multimask)
        qualities, best = scores.max(1)
        chosen = logits[torch.arange(len(best), device=best.device), best]
        counts = [len(question.prompts) for question in questions]
        return list(zip(torch.split(chosen, counts), torch.split(qualities, counts), strict=True))

    def _segments(self, logits: Tensor, qualities: Tensor, size: Size) -> Iterator[Segment]:
        """One mask at full size at a time."""
        for low, quality in zip(logits, qualities.tolist(), strict=True):
            with stage("mask_decode"):
                full = self.sam.upscale(low[None, None], size)[0, 0] > MASK_THRESHOLD
                mask = full.cpu().numpy()
            yield Segment(mask, quality)


def _chunks(questions: Sequence[Question | None]) -> Iterator[list[Question | None]]:
    """Neighbouring frames whose prompts fill one batch of the decoder together."""
    chunk: list[Question | None] = []
    count = 0
    for question in questions:
        more = 0 if question is None else len(question.prompts)
        if chunk and count + more > PROMPTS_PER_BATCH:
            yield chunk
            chunk, count = [], 0
        chunk.append(question)
        count += more
    if chunk:
        yield chunk
