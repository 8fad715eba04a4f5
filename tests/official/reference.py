"""In the official environment: small random models of the original packages, their checkpoints and answers.

.venv-official/bin/python -m tests.official.reference FOLDER
"""

from __future__ import annotations

import importlib
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.audioclip import AudioCLIP, AudioCLIPConfig
from models.checkpoints import write_safetensors
from models.files import digest
from models.networks import Networks
from models.strategies import STRATEGIES
from models.text_tokens import tiny_roberta, tiny_wordpieces
from models.weights import WEIGHTS, Weights, record
from tests.official import questions
from tests.official.packages import import_torchvision

PATCH = 16  # pixels a side that SAM makes one token of
FIRMNESS, OPINION, SPREAD = 2e3, 0.88, 2.0  # of random masks and of what SAM thinks of them


def main(folder: Path) -> None:
    """Write the checkpoints, as published, into a weights folder, and the answers beside it."""
    torch.manual_seed(0)
    import_torchvision()
    official = importlib.import_module("models.official")
    weights = Weights(folder / "weights", tiny=folder / "tiny")
    weights.folder.mkdir()
    install_texts(weights)
    install_audioclip(weights)
    official.BUILDERS = {
        "sam-vit-b": lambda _: sam(),
        "grounding-dino-swin-t": lambda weights: grounding_dino(official, weights),
        "clap-630k-audioset-best": lambda _: clap(official),
    }
    made = {name: official.BUILDERS[name](weights) for name in official.BUILDERS}
    network = stirred(made["sam-vit-b"])
    torch.save(network.state_dict(), folder / "sam.pth")
    answer_sam(official.OfficialSam(network, identity="plain"), folder)
    install(weights, "sam-vit-b", opinionated(network).state_dict())
    install(weights, "grounding-dino-swin-t", checkpoint_of_dino(stirred(made["grounding-dino-swin-t"])))
    module = made["clap-630k-audioset-best"]
    stirred(module.model)
    checkpoint = {"state_dict": module.model.state_dict(), "epoch": np.float64(1)}
    install(weights, "clap-630k-audioset-best", checkpoint)

    networks = Networks("cpu", weights, supplier="official")
    networks["grounding-dino"]._prepare = official.OfficialGroundingDino(
        None, short=questions.SHORT, long=questions.LONG
    )._prepare
    networks["clap"]._tokens = tiny_roberta(official.TEXT_TOKENS)
    answer_grid(networks["sam"], folder)
    found = networks["grounding-dino"].detect(
        questions.FRAMES, [questions.LABELS] * len(questions.FRAMES), threshold=0.0
    )
    np.savez(
        folder / "dino.npz",
        boxes=np.array([[each.box for each in frame] for frame in found]),
        scores=np.array([[each.score for each in frame] for frame in found]),
    )
    np.savez(
        folder / "clap.npz",
        audio=networks["clap"].audio(questions.SOUND).numpy(),
        text=networks["clap"].text(questions.SENTENCES).numpy(),
    )
    for name, options in questions.STRATEGIES.items():
        segmenter = importlib.import_module(STRATEGIES[name].module).build(networks)
        masks = np.stack([frame.mask for frame in segmenter(questions.clip(), options)])
        np.savez(folder / f"{name}.npz", masks=masks)


def answer_sam(segmenter: Any, folder: Path) -> None:
    """By the authors' predictor, a prompt at a time, and by the supplier."""
    predictor = importlib.import_module("segment_anything").SamPredictor(segmenter.network)
    answers = []
    for prompt in questions.PROMPTS:
        predictor.set_image(questions.FRAMES[prompt.frame])
        box = None if prompt.box is None else np.array(prompt.box)
        answers.append(predictor.predict(prompt.points, prompt.labels, box, return_logits=True)[:2])
    logits, scores = map(np.stack, zip(*answers, strict=True))
    size = (questions.FRAMES.shape[1], questions.FRAMES.shape[2])
    low, ours = segmenter.decode(segmenter.embed(questions.FRAMES), size, questions.PROMPTS)
    np.savez(
        folder / "sam.npz",
        logits=logits,
        scores=scores,
        supplied_logits=segmenter.upscale(low, size).numpy(),
        supplied_scores=ours.numpy(),
    )


def answer_grid(segmenter: Any, folder: Path) -> None:
    """What segment-anything's own automatic generator finds in each frame."""
    make = importlib.import_module("segment_anything").SamAutomaticMaskGenerator
    answers: dict[str, NDArray[Any]] = {}
    for kind, limits in questions.GRIDS.items():
        generator = make(
            segmenter.network,
            points_per_side=limits.points_per_side,
            pred_iou_thresh=limits.quality,
            stability_score_thresh=limits.stability,
            box_nms_thresh=limits.overlap,
        )
        for index, frame in enumerate(questions.FRAMES):
            found = generator.generate(frame)
            answers[f"masks_{kind}_{index}"] = np.stack([each["segmentation"] for each in found])
            answers[f"boxes_{kind}_{index}"] = np.array([each["bbox"] for each in found])  # x, y, w, h
            answers[f"scores_{kind}_{index}"] = np.array([each["predicted_iou"] for each in found])
    np.savez(folder / "grid.npz", **answers)


def install(weights: Weights, name: str, checkpoint: Any) -> None:
    """A checkpoint in the folder as `weights fetch --keep` leaves it; ours beside it is never read here."""
    original = weights.folder / WEIGHTS[name].file
    torch.save(checkpoint, original)
    write_safetensors(weights.file(name), {}, {})
    kept = {"source": "this test", "source_sha256": digest(original), "licence": "Apache-2.0"}
    record(weights.folder, name, weights.file(name), **kept)


def install_audioclip(weights: Weights) -> None:
    """A random tiny one: AudioCLIP is ours with either supplier."""
    weights.tiny.mkdir()
    path = weights.tiny / "audioclip.safetensors"
    write_safetensors(path, dict(AudioCLIP(AudioCLIPConfig.tiny()).state_dict()), {})
    record(weights.tiny, "audioclip-tiny", path, source="this test", source_sha256="", licence="Apache-2.0")


def install_texts(weights: Weights) -> None:
    """Vocabularies of single characters and bytes under the names of the published ones."""
    words = {index: word for word, index in tiny_wordpieces().items()}
    lines = [words.get(index, f"[unused{index}]") for index in range(questions.BERT["vocab_size"])]
    texts = {
        "bert-base-uncased": "\n".join(lines) + "\n",
        "roberta-base-vocab": json.dumps({"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}),
        "roberta-base-merges": "#version: 0.2\n",
    }
    for name, text in texts.items():
        path = weights.file(name)
        path.write_text(text)
        record(weights.folder, name, path, source="this test", source_sha256="", licence="Apache-2.0")


def stirred(network: Any) -> Any:
    """Random in every trained parameter: as initialised, some are zero and hide what they multiply."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in filter(lambda each: each.requires_grad, network.parameters()):
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return network.eval()


def opinionated(network: Any) -> Any:
    """SAM with masks far from their threshold, and opinions of them around the grid's limit."""
    decoder = network.mask_decoder
    with torch.no_grad():
        for head in decoder.output_hypernetworks_mlps:
            head.layers[-1].weight.mul_(FIRMNESS)
            head.layers[-1].bias.mul_(FIRMNESS)
        decoder.iou_prediction_head.layers[-1].weight.mul_(SPREAD)
        decoder.iou_prediction_head.layers[-1].bias.fill_(OPINION)
    return network


def checkpoint_of_dino(network: Any) -> dict[str, Any]:
    """As published, with a training loop's wrappers."""
    with torch.no_grad():  # else every random logit is so large that its probability is 1
        network.transformer.decoder.norm.weight.mul_(0.1)
    return {"model": {f"module.{key}": each for key, each in network.state_dict().items()}}


def sam() -> Any:
    """segment-anything in the sizes of `questions.SAM`."""
    modeling = importlib.import_module("segment_anything.modeling")
    vision, decoder = questions.SAM["vision_config"], questions.SAM["mask_decoder_config"]
    side, width = vision["image_size"], vision["output_channels"]
    return modeling.Sam(
        image_encoder=modeling.ImageEncoderViT(
            depth=vision["num_hidden_layers"],
            embed_dim=vision["hidden_size"],
            img_size=side,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            num_heads=vision["num_attention_heads"],
            use_rel_pos=True,
            global_attn_indexes=vision["global_attn_indexes"],
            window_size=vision["window_size"],
            out_chans=width,
        ),
        prompt_encoder=modeling.PromptEncoder(
            embed_dim=width,
            image_embedding_size=(side // PATCH, side // PATCH),
            input_image_size=(side, side),
            mask_in_chans=16,
        ),
        mask_decoder=modeling.MaskDecoder(
            transformer_dim=width,
            transformer=modeling.TwoWayTransformer(
                depth=2,
                embedding_dim=width,
                num_heads=decoder["num_attention_heads"],
                mlp_dim=decoder["mlp_dim"],
            ),
            iou_head_hidden_dim=decoder["iou_head_hidden_dim"],
        ),
    )


def grounding_dino(official: Any, weights: Weights) -> Any:
    """groundingdino with Swin-T as it is and the rest small."""
    transformers = importlib.import_module("transformers")
    bert = transformers.BertConfig(**questions.BERT)
    vocabulary = weights.path("bert-base-uncased")
    return official.build_grounding_dino("GroundingDINO_SwinT_OGC.py", vocabulary, bert, **questions.DINO)


def clap(official: Any) -> Any:
    """laion-clap with HTSAT-tiny as it is and a small RoBERTa."""
    transformers = importlib.import_module("transformers")
    return official.build_clap(
        transformers.RobertaConfig(
            max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5, **questions.ROBERTA
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
