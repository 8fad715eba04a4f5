"""What is heard: a sound against a list of names, by the cosine of CLAP or AudioCLIP. Sounds of concurrent
windows share batches; names are encoded once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.batching import Batcher
from models.stages import stage
from models.suppliers import SoundTextEncoder
from models.vocabularies import VocabularyName


class Recogniser:
    """`rate` is that of the sound that its network hears, in hertz; `made_for` the names it learnt, of which
    one is heard where its cosine reaches `calibrated`, if that was measured."""

    def __init__(
        self,
        encoder: SoundTextEncoder,
        rate: int,
        batcher: Batcher,
        made_for: VocabularyName = "audioset",
        calibrated: float | None = None,
    ) -> None:
        self.encoder, self.rate, self.batcher = encoder, rate, batcher
        self.made_for, self.calibrated = made_for, calibrated

    def listen(self, seconds: NDArray[np.float32]) -> Tensor:
        """Sounds [n, samples] at `rate` -> unit rows [n, d]; all of a window in one batch."""
        if not len(seconds):
            return torch.empty(0, 0)
        with stage("audio_encode"):
            return torch.stack(self.batcher(self._listen, list(seconds), seconds.shape[1]))

    @torch.inference_mode()
    def cosines(self, heard: Tensor, names: Sequence[str]) -> NDArray[np.float32]:
        """Rows of `listen` and m names -> how well each name fits each sound, [n, m] in [-1, 1]."""
        if not len(heard) or not names:
            return np.zeros((len(heard), len(names)), np.float32)
        return (heard @ self.encoder.text(names).T).float().cpu().numpy()

    def _listen(self, seconds: list[NDArray[np.float32]]) -> list[Tensor]:
        return list(self.encoder.audio(np.stack(seconds)))


def best(scores: NDArray[np.float32], count: int, least: float | None) -> list[int]:
    """The places of the largest of [m] scores, in falling order, those that reach `least`."""
    order = np.argsort(-scores, kind="stable")[:count]
    return [int(place) for place in order if least is None or scores[place] >= least]
