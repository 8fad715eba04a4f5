"""In the official environment: small random models of the original packages, their checkpoints and answers.

.venv-official/bin/python -m tests.official.reference FOLDER
"""

from __future__ import annotations

import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from models.text_tokens import tiny_roberta, tiny_wordpieces
from tests.official import questions
from tests.official.packages import import_laion_clap, import_torchvision


def main(folder: Path) -> None:
    """Write `NAME.pth` and `NAME.npz` for each of the three."""
    torch.manual_seed(0)
    import_torchvision()
    official = importlib.import_module("models.official")

    network = stirred(sam())
    torch.save(network.state_dict(), folder / "sam.pth")
    logits, scores = official.OfficialSam(network).logits(questions.FRAMES, questions.PROMPTS)
    np.savez(folder / "sam.npz", logits=logits, scores=scores)

    network = stirred(grounding_dino(folder / "bert"))
    with torch.no_grad():  # else every random logit is so large that its probability is 1
        network.transformer.decoder.norm.weight.mul_(0.1)
    torch.save(
        {"model": {f"module.{key}": each for key, each in network.state_dict().items()}}, folder / "dino.pth"
    )
    detector = official.OfficialGroundingDino(network, short=questions.SHORT, long=questions.LONG)
    found = detector.detect(questions.FRAMES, [questions.LABELS] * len(questions.FRAMES), threshold=0.0)
    boxes = np.array([[each.box for each in frame] for frame in found])
    np.savez(
        folder / "dino.npz", boxes=boxes, scores=np.array([[each.score for each in frame] for frame in found])
    )

    module = import_laion_clap(questions.ROBERTA).CLAP_Module(enable_fusion=False, device="cpu")
    stirred(module.model)
    torch.save({"state_dict": module.model.state_dict(), "epoch": np.float64(1)}, folder / "clap.pth")
    encoder = official.OfficialClap(module, tokenize)
    np.savez(
        folder / "clap.npz",
        audio=encoder.audio(questions.SOUND).numpy(),
        text=encoder.text(questions.SENTENCES).numpy(),
    )


def stirred(network: Any) -> Any:
    """Random in every trained parameter: as initialised, some are zero and hide what they multiply."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in filter(lambda each: each.requires_grad, network.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return network.eval()


def sam() -> Any:
    """segment-anything at the size of `sam-tiny`."""
    modeling = importlib.import_module("segment_anything.modeling")
    return modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            depth=4,
            embed_dim=96,
            img_size=256,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            num_heads=4,
            use_rel_pos=True,
            global_attn_indexes=(1, 3),
            window_size=14,
            out_chans=64,
        ),
        prompt_encoder=modeling.PromptEncoder(
            embed_dim=64, image_embedding_size=(16, 16), input_image_size=(256, 256), mask_in_chans=16
        ),
        mask_decoder=modeling.MaskDecoder(
            transformer_dim=64,
            transformer=modeling.TwoWayTransformer(depth=2, embedding_dim=64, num_heads=4, mlp_dim=256),
            iou_head_hidden_dim=64,
        ),
    )


def grounding_dino(bert: Path) -> Any:
    """groundingdino with Swin-T as it is and the rest small; its BERT lies in a folder made here."""
    transformers = importlib.import_module("transformers")
    transformers.BertModel(transformers.BertConfig(**questions.BERT)).save_pretrained(bert)
    words = {index: word for word, index in tiny_wordpieces().items()}
    lines = [words.get(index, f"[unused{index}]") for index in range(questions.BERT["vocab_size"])]
    (bert / "vocab.txt").write_text("\n".join(lines) + "\n")
    package = importlib.import_module("groundingdino")
    settings = importlib.import_module("groundingdino.util.slconfig").SLConfig.fromfile(
        str(Path(package.__file__ or "").parent / "config/GroundingDINO_SwinT_OGC.py")
    )
    for key, value in {**questions.DINO, "device": "cpu", "text_encoder_type": str(bert)}.items():
        setattr(settings, key, value)
    return importlib.import_module("groundingdino.models").build_model(settings)


def tokenize(sentences: list[str]) -> dict[str, torch.Tensor]:
    """Single bytes, in the form that laion-clap's own tokenizer returns."""
    ids, real = tiny_roberta(77).batch(sentences)
    return {"input_ids": ids, "attention_mask": real.long()}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
