"""SAM, Grounding DINO and CLAP from segment-anything, groundingdino-py and laion-clap: the second supplier.

It answers the Protocols of `models/suppliers.py` as the authors' own calls do: a frame, a prompt, a caption
at a time. It exists for users who run those packages, and as the judge of the default supplier. It needs the
extra `official` in an environment of its own, where torchvision, NumPy 1 and transformers 4 fit together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from groundingdino.datasets import transforms
from groundingdino.util.inference import predict
from numpy.typing import NDArray
from PIL import Image
from segment_anything import SamPredictor
from torch import Tensor

from models.suppliers import BOX_THRESHOLD, Detection, MaskSet, Prompt

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # RGB, of 0..1


class OfficialSam:
    """`PromptedSegmenter` over a `segment_anything` model."""

    def __init__(self, network: Any) -> None:  # noqa: ANN401
        self.predictor = SamPredictor(network)

    def predict(
        self, frames: NDArray[np.uint8], prompts: Sequence[Prompt], *, multimask: bool = True
    ) -> list[MaskSet]:
        """Each frame that has a prompt is embedded once; the masks of each prompt, in order."""
        found: dict[int, MaskSet] = {}
        for frame in sorted({prompt.frame for prompt in prompts}):
            self.predictor.set_image(frames[frame])
            for index, prompt in enumerate(prompts):
                if prompt.frame == frame:
                    found[index] = MaskSet(*self._answer(prompt, multimask, logits=False))
        return [found[index] for index in range(len(prompts))]

    def logits(
        self, frames: NDArray[np.uint8], prompts: Sequence[Prompt], *, multimask: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mask logits at the size of the frames [p, k, H, W], and predicted qualities [p, k]."""
        answers = []
        for prompt in prompts:
            self.predictor.set_image(frames[prompt.frame])
            answers.append(self._answer(prompt, multimask, logits=True))
        masks, scores = zip(*answers, strict=True)
        return np.stack(masks), np.stack(scores)

    def _answer(self, prompt: Prompt, multimask: bool, *, logits: bool) -> tuple[Any, Any]:
        masks, scores, _ = self.predictor.predict(
            point_coords=prompt.points,
            point_labels=prompt.labels,
            box=None if prompt.box is None else np.array(prompt.box),
            multimask_output=multimask,
            return_logits=logits,
        )
        return masks, scores


class OfficialGroundingDino:
    """`Detector` over a `groundingdino` model: a pass of the whole network for each label of each frame."""

    def __init__(self, network: Any, *, short: int = 800, long: int = 1333) -> None:  # noqa: ANN401
        self.network = network
        self._prepare = transforms.Compose(
            [
                transforms.RandomResize([short], max_size=long),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def detect(
        self, frames: NDArray[np.uint8], labels: Sequence[Sequence[str]], threshold: float = BOX_THRESHOLD
    ) -> list[list[Detection]]:
        """For each frame its boxes above the threshold, label after label."""
        found: list[list[Detection]] = []
        for frame, asked in zip(frames, labels, strict=True):
            pixels, _ = self._prepare(Image.fromarray(frame), None)
            height, width = frame.shape[:2]
            found.append([])
            for label in asked:
                boxes, scores, _ = predict(
                    self.network,
                    pixels,
                    label,
                    box_threshold=threshold,
                    text_threshold=1.0,  # no phrases: the label is what was asked
                    device=str(next(self.network.parameters()).device),
                )
                centre, extent = (boxes * torch.tensor([width, height, width, height])).chunk(2, -1)
                corners = torch.cat([centre - extent / 2, centre + extent / 2], -1).tolist()
                found[-1] += [
                    Detection((x1, y1, x2, y2), score, label)
                    for (x1, y1, x2, y2), score in zip(corners, scores.tolist(), strict=True)
                ]
        return found


class OfficialClap:
    """`SoundTextEncoder` over `laion_clap.CLAP_Module`; `tokenize` replaces the one it downloads."""

    def __init__(self, module: Any, tokenize: Callable[[list[str]], Any] | None = None) -> None:  # noqa: ANN401
        self.module, self._tokenize = module, tokenize

    @torch.inference_mode()
    def audio(self, sound: NDArray[np.float32]) -> Tensor:
        """Mono sound at 48 kHz, float32 [n, samples] in [-1, 1] -> unit rows [n, d]."""
        return torch.from_numpy(self.module.get_audio_embedding_from_data(sound))

    @torch.inference_mode()
    def text(self, sentences: Sequence[str]) -> Tensor:
        """Sentences -> unit rows [n, d]."""
        return torch.from_numpy(self.module.get_text_embedding(list(sentences), tokenizer=self._tokenize))
