"""audioclip_forward.npz: tokens, the unit features of all three towers, logits and the loss."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from models.audioclip.tokenizer import Tokenizer
from tests.parity.golden import Golden, vocabulary
from tests.parity.row import LOGITS, Row, exact, relative, skipped

SECONDS = 5
# SPEC.md section 1.4 lists those whose tokens are stored.
TEXTS = (
    "cat",
    "a photo of a dog.",
    "Baby laughter",
    "horse clip clop",
    "typing on computer keyboard",
    "it's 2023!",
)
# The two whose features are: AudioCLIP takes a list of labels a row, and joins them by ", ".
LABELS = (("cat",), ("male speech, man speaking", "dog"))


@torch.inference_mode()
def rows(golden: Golden) -> Iterator[Row]:
    """One forward pass of all three towers."""
    want, network, path = golden.arrays("audioclip_forward"), golden.audioclip, vocabulary()
    if path is None:
        yield from (skipped(name, "vocabulary missing") for name in want)
        return
    tokenizer = Tokenizer.from_file(path)
    yield exact("tokens", tokenizer(TEXTS, want["tokens"].shape[1]), want["tokens"])
    count = len(want["image_features"])
    sound = golden.waves[: len(want["audio_features"]), None].tile(SECONDS)
    images = golden.det.images(count)
    out = network(sound, images, tokenizer([", ".join(row) for row in LABELS]), "paper")
    for name, ours in (("audio", out.audio), ("image", out.image), ("text", out.text)):
        yield relative(f"{name}_features", ours, want[f"{name}_features"])
    for name in ("logits_ai", "logits_at", "logits_it", "loss"):
        yield relative(name, getattr(out, name), want[name], LOGITS)
