"""SAM, Grounding DINO and CLAP from segment-anything, groundingdino-py and laion-clap: the second supplier.

It answers the Protocols of `models/suppliers.py` as the authors' own code does: a frame, a caption at a time.
It exists for users who run those packages, and as the judge of the default supplier. It needs the extra
`official` in an environment of its own, where torchvision, NumPy 1 and transformers 4 fit together, and the
original checkpoints, which `weights fetch --keep` leaves beside ours.

Two of the packages download texts and networks when they are imported or built. Here they are handed what
the weights folder holds: nothing is downloaded, and no pickle is run.
"""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import groundingdino
import numpy as np
import torch
import transformers
from groundingdino.datasets import transforms
from groundingdino.models import build_model
from groundingdino.util import get_tokenlizer
from groundingdino.util.inference import predict
from groundingdino.util.slconfig import SLConfig
from numpy.typing import NDArray
from PIL import Image
from segment_anything import sam_model_registry
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from models.checkpoints import load_into, read_checkpoint
from models.embedding_cache import CACHE_BYTES, CacheCounts, EmbeddingCache
from models.suppliers import BOX_THRESHOLD, MULTIMASK, PROMPTS_PER_BATCH, Detection, Prompt
from models.text_rows import TextRows
from models.text_tokens import TextTokens, roberta
from models.weights import Weights

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # RGB, of 0..1
TEXT_TOKENS = 77  # CLAP's longest sentence, its two ends included
TRAINING_ONLY = "label_enc."  # of Grounding DINO's checkpoints: their network does not hold it


class OfficialSam:
    """`PromptedSegmenter` over a `segment_anything` model."""

    def __init__(self, network: Any, *, identity: str, cache_bytes: int = CACHE_BYTES) -> None:  # noqa: ANN401
        self.network, self._identity = network, identity
        self.size: int = network.image_encoder.img_size
        self._scale = ResizeLongestSide(self.size)
        self._cache = EmbeddingCache(cache_bytes)

    @property
    def cache_counts(self) -> CacheCounts:
        """Hits and misses since the start, entries and bytes now."""
        return self._cache.counts

    @torch.inference_mode()
    def embed(self, frames: NDArray[np.uint8]) -> Tensor:
        """RGB uint8 [n, H, W, 3] -> image embeddings [n, C, s, s] on the device."""
        return self._cache.of_frames(frames, self._identity, self._embed, per_batch=1)

    def _embed(self, frames: NDArray[np.uint8]) -> Tensor:
        pixels = np.stack([self._scale.apply_image(frame) for frame in frames])
        image = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.network.device)
        embeddings: Tensor = self.network.image_encoder(self.network.preprocess(image))
        return embeddings

    @torch.inference_mode()
    def decode(
        self, embeddings: Tensor, size: tuple[int, int], prompts: Sequence[Prompt], *, multimask: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Low-resolution mask logits [p, k, size/4, size/4] and predicted qualities [p, k]: prompts of one
        frame and one shape together, as the original decoder takes them."""
        side, count = self.size // 4, MULTIMASK if multimask else 1
        logits = embeddings.new_empty((len(prompts), count, side, side))
        scores = embeddings.new_empty((len(prompts), count))
        groups: dict[tuple[int, tuple[int, bool]], list[int]] = defaultdict(list)
        for index, prompt in enumerate(prompts):
            groups[prompt.frame, prompt.shape].append(index)
        for (frame, _), indices in groups.items():
            for start in range(0, len(indices), PROMPTS_PER_BATCH):
                batch = indices[start : start + PROMPTS_PER_BATCH]
                logits[batch], scores[batch] = self._decode(
                    embeddings[frame : frame + 1], size, [prompts[index] for index in batch], multimask
                )
        return logits, scores

    def _decode(
        self, embedding: Tensor, size: tuple[int, int], prompts: Sequence[Prompt], multimask: bool
    ) -> tuple[Tensor, Tensor]:
        points = boxes = None
        if prompts[0].points is not None:
            places = self._scale.apply_coords(np.stack([np.asarray(each.points) for each in prompts]), size)
            points = self._tensor(places), self._tensor(np.stack([np.asarray(p.labels) for p in prompts]))
        if prompts[0].box is not None:
            boxes = self._tensor(self._scale.apply_boxes(np.array([each.box for each in prompts]), size))
        encoder = self.network.prompt_encoder
        sparse, dense = encoder(points=points, boxes=boxes, masks=None)
        masks, qualities = self.network.mask_decoder(
            image_embeddings=embedding,
            image_pe=encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
        )
        return masks, qualities

    def _tensor(self, rows: NDArray[Any]) -> Tensor:
        return torch.from_numpy(rows).float().to(self.network.device)

    @torch.inference_mode()
    def upscale(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Low-resolution logits [p, k, s, s] -> logits at the size of the frame [p, k, H, W]."""
        fitted = self._scale.get_preprocess_shape(*size, self.size)
        full: Tensor = self.network.postprocess_masks(logits, fitted, size)
        return full


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
    """`SoundTextEncoder` over `laion_clap.CLAP_Module`."""

    def __init__(self, module: Any, tokens: TextTokens) -> None:  # noqa: ANN401
        self.module, self._tokens = module, tokens
        self._rows = TextRows(self._text)

    @torch.inference_mode()
    def audio(self, sound: NDArray[np.float32]) -> Tensor:
        """Mono sound at 48 kHz, float32 [n, samples] in [-1, 1] -> unit rows [n, d]."""
        return torch.from_numpy(self.module.get_audio_embedding_from_data(sound))

    @torch.inference_mode()
    def text(self, sentences: Sequence[str]) -> Tensor:
        """Sentences -> unit rows [n, d]. A sentence seen before is not computed again."""
        return self._rows(sentences)

    def _text(self, sentences: Sequence[str]) -> Tensor:
        return torch.from_numpy(self.module.get_text_embedding(list(sentences), tokenizer=self._tokenized))

    def _tokenized(self, sentences: list[str]) -> dict[str, Tensor]:
        """In the form that laion-clap's own tokenizer returns."""
        ids, real = self._tokens.batch(sentences)
        return {"input_ids": ids, "attention_mask": real.long()}


def load_sam(weights: Weights, device: torch.device | str = "cpu") -> OfficialSam:
    """The installed SAM on segment-anything."""
    name, network = loaded(weights, "sam")
    return OfficialSam(network.to(device), identity=weights.identity(name).sha256)


def load_grounding_dino(weights: Weights, device: torch.device | str = "cpu") -> OfficialGroundingDino:
    """The installed Grounding DINO on groundingdino-py."""
    return OfficialGroundingDino(loaded(weights, "grounding-dino")[1].to(device))


def load_clap(weights: Weights, device: torch.device | str = "cpu") -> OfficialClap:
    """The installed CLAP on laion-clap."""
    _, module = loaded(weights, "clap")
    vocabulary, merges = weights.path("roberta-base-vocab"), weights.path("roberta-base-merges")
    return OfficialClap(module.to(device), roberta(vocabulary, merges, TEXT_TOKENS))


def loaded(weights: Weights, network: str) -> tuple[str, Any]:
    """The installed weight's name and its network, in evaluation mode, with the original file's tensors."""
    path = weights.original(network)
    name = weights.resolve(network)
    made = BUILDERS[name](weights)
    state = {key: each for key, each in read_checkpoint(path).items() if not key.startswith(TRAINING_ONLY)}
    load_into(getattr(made, "model", made), state, path.name)
    return name, made.eval()


def build_grounding_dino(config: str, vocabulary: Path, bert: Any = None, **sizes: Any) -> Any:  # noqa: ANN401
    """groundingdino's network of one of its own configuration files, its BERT random: the checkpoint holds
    that too. `bert` is a BertConfig, bert-base-uncased's if None; `sizes` go over the file's."""
    settings = SLConfig.fromfile(str(Path(groundingdino.__file__).parent / "config" / config))
    for key, value in {**sizes, "device": "cpu"}.items():
        setattr(settings, key, value)
    tokens = transformers.BertTokenizerFast(vocab_file=str(vocabulary))
    tower = transformers.BertModel(bert or transformers.BertConfig())
    with (
        replaced(get_tokenlizer, "get_tokenlizer", lambda _: tokens),
        replaced(get_tokenlizer, "get_pretrained_language_model", lambda _: tower),
    ):
        return build_model(settings)


def build_clap(text: Any = None) -> Any:  # noqa: ANN401
    """laion-clap's module without fusion, random. `text` is a RobertaConfig, roberta-base's if None."""
    text = text or transformers.RobertaConfig(
        vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5
    )
    build = transformers.RobertaModel
    with ExitStack() as without_network:
        for name in ("BertTokenizer", "RobertaTokenizer", "BartTokenizer"):
            tokenizer = getattr(transformers, name)
            without_network.enter_context(replaced(tokenizer, "from_pretrained", lambda *_, **__: None))
        without_network.enter_context(replaced(build, "from_pretrained", lambda *_, **__: build(text)))
        package = importlib.import_module("laion_clap")
        return package.CLAP_Module(enable_fusion=False, device="cpu")


@contextmanager
def replaced(owner: Any, name: str, value: Callable[..., Any]) -> Iterator[None]:  # noqa: ANN401
    """A function of somebody else's, exchanged while the block runs."""
    before = vars(owner).get(name)
    setattr(owner, name, staticmethod(value) if isinstance(owner, type) else value)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def _dino(config: str) -> Callable[[Weights], Any]:
    return lambda weights: build_grounding_dino(config, weights.path("bert-base-uncased"))


# The name of a weight -> what builds the network for it.
BUILDERS: Mapping[str, Callable[[Weights], Any]] = MappingProxyType(
    {
        "sam-vit-h": lambda _: sam_model_registry["vit_h"](),
        "sam-vit-l": lambda _: sam_model_registry["vit_l"](),
        "sam-vit-b": lambda _: sam_model_registry["vit_b"](),
        "grounding-dino-swin-t": _dino("GroundingDINO_SwinT_OGC.py"),
        "grounding-dino-swin-b": _dino("GroundingDINO_SwinB_cfg.py"),
        "clap-630k-audioset-best": lambda _: build_clap(),
    }
)
