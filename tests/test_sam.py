"""SAM at tiny size, random weights: batches equal single calls, the cache spares the encoder, keys map."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models import sam
from models.checkpoints import check_fit, load_into, read_checkpoint
from models.embedding_cache import EmbeddingCache, content_key
from models.errors import WeightsInvalid
from models.install import import_checkpoint, install_trained
from models.key_rules import RULES
from models.sam import Sam
from models.suppliers import PROMPTS_PER_BATCH, Prompt
from models.weights import Weights
from tests.tiny_networks import batches, seeing

MANIFESTS = Path(__file__).parent / "data/manifests"
TOLERANCE = 2e-5  # a batch is summed in another order


@pytest.fixture(scope="module")
def network() -> Any:
    torch.manual_seed(0)
    network = seeing(sam.build("sam-tiny"))
    with torch.no_grad():  # as initialised, prompts and images change a logit by less than the tolerance
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return network


@pytest.fixture
def segmenter(network: Any) -> Sam:
    return Sam(network, identity="random")


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (5, 60, 100, 3), np.uint8)


def points(frame: int, *xy: tuple[float, float]) -> Prompt:
    return Prompt(frame, np.array(xy, np.float32), np.arange(len(xy)) % 2)


PROMPTS = [
    points(0, (10, 20)),
    Prompt(1, box=(5, 5, 50, 40)),
    points(4, (90, 50), (3, 3)),
    points(2, (30, 30)),
    Prompt(0, np.array([[9, 9]], np.float32), np.array([1]), (1, 1, 20, 20)),
    points(2, (60, 10), (1, 2)),
]


def test_prompts_of_all_kinds_and_frames_decode_together_as_alone(
    segmenter: Sam, frames: NDArray[np.uint8]
) -> None:
    embeddings = segmenter.embed(frames)
    together, scores = segmenter.decode(embeddings, (60, 100), PROMPTS)
    assert together.shape == (6, 3, 40, 40)
    for index, prompt in enumerate(PROMPTS):
        mine = embeddings[prompt.frame][None]
        alone, score = segmenter.decode(mine, (60, 100), [replace(prompt, frame=0)])
        torch.testing.assert_close(together[index], alone[0], atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(scores[index], score[0], atol=TOLERANCE, rtol=0)


def test_what_is_seen_and_asked_matters(segmenter: Sam, frames: NDArray[np.uint8]) -> None:
    """With the image or the prompts ignored, the other tests would pass as well."""
    embeddings = segmenter.embed(frames)
    asked = [PROMPTS[0], replace(PROMPTS[0], frame=1), PROMPTS[4]]
    logits, _ = segmenter.decode(embeddings, (60, 100), asked)
    assert (logits[0] - logits[1]).abs().max() > 100 * TOLERANCE
    assert (logits[0] - logits[2]).abs().max() > 100 * TOLERANCE


def test_a_batch_of_frames_embeds_as_each_alone(network: Any, frames: NDArray[np.uint8]) -> None:
    together = Sam(network, identity="a").embed(frames)
    alone = torch.cat([Sam(network, identity="b").embed(frame[None]) for frame in frames])
    torch.testing.assert_close(together, alone, atol=TOLERANCE, rtol=0)


def test_the_whole_forward_of_the_network_is_what_decode_computes(
    segmenter: Sam, frames: NDArray[np.uint8]
) -> None:
    """`SamModel.forward` on one image and one prompt, its inputs prepared here."""
    scaled = torch.tensor([[[[10 * 160 / 100, 20 * 96 / 60]]]])
    with torch.inference_mode():
        expected = segmenter.network(
            pixel_values=segmenter.preprocess(frames[0])[None],
            input_points=scaled,
            input_labels=torch.tensor([[[0]]]),
        )
    logits, scores = segmenter.decode(segmenter.embed(frames[:1]), (60, 100), [points(0, (10, 20))])
    torch.testing.assert_close(logits, expected.pred_masks[:, 0], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(scores, expected.iou_scores[:, 0], atol=TOLERANCE, rtol=0)


def test_masks_come_back_at_the_size_of_the_frame(segmenter: Sam, frames: NDArray[np.uint8]) -> None:
    size, embeddings = (60, 100), segmenter.embed(frames)
    several, _ = segmenter.decode(embeddings, size, PROMPTS)
    single, _ = segmenter.decode(embeddings, size, PROMPTS, multimask=False)
    assert segmenter.upscale(several, size).shape == (6, 3, *size)
    assert segmenter.upscale(single, size).shape == (6, 1, *size)
    assert [len(each) for each in segmenter.decode(embeddings, size, [])] == [0, 0]


@pytest.mark.parametrize("size", [(60, 100), (100, 60), (1, 7), (160, 160), (33, 500), (1, 1000), (3000, 2)])
def test_the_frame_fills_the_long_side_and_the_rest_is_zero(segmenter: Sam, size: tuple[int, int]) -> None:
    frame = np.full((*size, 3), 255, np.uint8)
    pixels = segmenter.preprocess(frame)
    height, width = segmenter.fitted(size)
    assert max(height, width) == 160
    white = (255 - torch.tensor(sam.MEAN)) / torch.tensor(sam.STD)
    assert torch.allclose(pixels[:, :height, :width], white[:, None, None].expand(-1, height, width))
    assert not pixels[:, height:].any()
    assert not pixels[:, :, width:].any()


def test_upscaling_maps_the_logits_of_the_frame_to_the_frame(segmenter: Sam) -> None:
    """A low-resolution step at half the fitted width becomes a step at half the frame."""
    logits = torch.full((1, 1, 40, 40), -1.0)
    logits[..., :20] = 1.0
    mask = segmenter.upscale(logits, (60, 100))[0, 0] > 0
    assert mask.shape == (60, 100)
    assert mask[:, :50].all()
    assert not mask[:, 50:].any()


def test_five_frames_are_one_batch_and_a_second_request_none(
    segmenter: Sam, network: Any, frames: NDArray[np.uint8]
) -> None:
    with batches(network.vision_encoder) as encoded:
        segmenter.embed(frames)
        segmenter.embed(frames)
        segmenter.embed(frames[::-1])
    assert encoded == [5]
    counts = segmenter.cache_counts
    assert (counts.hits, counts.misses, counts.entries) == (10, 5, 5)
    assert counts.bytes == 5 * 64 * 10 * 10 * 4


def test_on_a_cpu_what_is_as_large_as_at_full_size_goes_in_small_batches(segmenter: Sam) -> None:
    with torch.device("meta"):
        published = Sam(sam.build("sam-vit-b", initialise=False), identity="random")
    published.network.to_empty(device="cpu")
    kinds = [(sam.IMAGES_PER_BATCH, sam.CPU_IMAGE_PLACES), (PROMPTS_PER_BATCH, sam.CPU_PROMPT_PLACES)]
    assert [published._at_once(*kind) for kind in kinds] == [1, 8]
    assert [segmenter._at_once(*kind) for kind in kinds] == [sam.IMAGES_PER_BATCH, PROMPTS_PER_BATCH]


def test_equal_frames_of_one_batch_are_embedded_once(
    segmenter: Sam, network: Any, frames: NDArray[np.uint8]
) -> None:
    with batches(network.vision_encoder) as encoded:
        embeddings = segmenter.embed(frames[[0, 0, 1]])
    assert encoded == [2]
    assert torch.equal(embeddings[0], embeddings[1])


def test_the_cache_keeps_its_bytes_and_forgets_the_oldest() -> None:
    cache = EmbeddingCache(limit=100)
    for name in (b"a", b"b"):
        cache.put(name, torch.zeros(10))
    assert cache.get(b"a") is not None
    cache.put(b"c", torch.zeros(10))
    assert cache.get(b"b") is None, "b was used least recently"
    cache.put(b"huge", torch.zeros(100))
    assert cache.get(b"huge") is None
    assert cache.counts.bytes == 80


def test_what_is_kept_holds_no_more_than_its_bytes() -> None:
    """A view of a batch would keep the whole batch alive."""
    cache, frames = EmbeddingCache(limit=1000), np.arange(3, dtype=np.uint8)[:, None, None]
    cache.of_frames(frames, "w", lambda new: torch.zeros(len(new), 10), per_batch=3)
    kept = [cache.get(content_key(frame, "w")) for frame in frames]
    assert [each.untyped_storage().nbytes() for each in kept if each is not None] == [40] * 3


def test_the_key_depends_on_pixels_shape_and_weights() -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    keys = {
        content_key(pixels, "w"),
        content_key(pixels, "other weights"),
        content_key(pixels.reshape(3, 2, 3), "w"),
        content_key(pixels + 1, "w"),
    }
    assert len(keys) == 4
    assert content_key(pixels[::1], "w") in keys


def test_threads_share_one_cache(segmenter: Sam, frames: NDArray[np.uint8]) -> None:
    expected = segmenter.embed(frames)
    right: list[bool] = []

    def work(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(5)
        right.extend(torch.equal(segmenter.embed(frames[order]), expected[order.tolist()]) for _ in range(20))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert right == [True] * 80
    assert segmenter.cache_counts.misses == 5


def test_saved_weights_load_to_the_same_masks(
    network: Any, frames: NDArray[np.uint8], tmp_path: Path
) -> None:
    weights = Weights(tmp_path / "weights", tiny=tmp_path / "tiny")
    install_trained(weights, "sam-tiny", network.state_dict(), source="random")
    loaded = sam.load(weights)
    expected, _ = Sam(network, identity="x").decode(
        Sam(network, identity="x").embed(frames), (60, 100), PROMPTS
    )
    actual, _ = loaded.decode(loaded.embed(frames), (60, 100), PROMPTS)
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("name", sam.CONFIGS)
def test_the_published_layout_fits_the_network_key_for_key(name: str) -> None:
    with torch.device("meta"):
        state = {key: torch.empty(shape) for key, shape in published(name).items()}
        network = sam.build(name)
    state |= {"pixel_mean": torch.zeros(3), "pixel_std": torch.zeros(3)}
    full = check_fit(network, RULES["sam"].apply(state), name)
    assert len(full) == len(published(name)) + 1  # one matrix has two names here


def published(name: str) -> dict[str, list[int]]:
    """Key -> shape of segment-anything's own module of this size, as its 1.0 makes it."""
    manifest: dict[str, list[int]] = json.loads((MANIFESTS / "sam_manifest.json").read_text())[name]
    return manifest


def test_each_original_tensor_arrives_under_the_name_of_its_role() -> None:
    generator = torch.Generator().manual_seed(0)
    original = {key: torch.randn(shape, generator=generator) for key, shape in published("sam-tiny").items()}
    network = sam.build("sam-tiny", initialise=False)
    load_into(network, RULES["sam"].apply(original), "original")
    state = network.state_dict()
    matrix = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    mlps = "mask_decoder.output_hypernetworks_mlps"
    iou = "mask_decoder.iou_prediction_head"
    for ours, theirs in {
        "shared_image_embedding.positional_embedding": matrix,
        "prompt_encoder.shared_embedding.positional_embedding": matrix,
        "prompt_encoder.point_embed.3.weight": "prompt_encoder.point_embeddings.3.weight",
        "prompt_encoder.mask_embed.layer_norm2.weight": "prompt_encoder.mask_downscaling.4.weight",
        "vision_encoder.layers.3.mlp.lin1.weight": "image_encoder.blocks.3.mlp.lin1.weight",
        "vision_encoder.neck.layer_norm2.bias": "image_encoder.neck.3.bias",
        f"{iou}.layers.0.weight": f"{iou}.layers.1.weight",
        f"{mlps}.2.proj_out.bias": f"{mlps}.2.layers.2.bias",
        "mask_decoder.upscale_conv2.weight": "mask_decoder.output_upscaling.3.weight",
    }.items():
        assert torch.equal(state[ours], original[theirs]), ours


@pytest.mark.slow
def test_an_original_checkpoint_is_imported_and_loads(tmp_path: Path) -> None:
    """Random ViT-B weights in the published layout, through both file formats."""
    original = {key: torch.randn(shape) * 0.02 for key, shape in published("sam-vit-b").items()}
    torch.save(original, tmp_path / "sam.pth")
    weights = Weights(tmp_path / "weights", tiny=tmp_path / "tiny")
    with pytest.raises(WeightsInvalid, match="wrong sha256"):
        import_checkpoint(weights, "sam-vit-b", tmp_path / "sam.pth")
    path = import_checkpoint(weights, "sam-vit-b", tmp_path / "sam.pth", trust=True)
    assert len(read_checkpoint(path)) == len(original)
    bias = sam.load(weights).network.state_dict()["vision_encoder.neck.layer_norm2.bias"]
    assert torch.equal(bias, original["image_encoder.neck.3.bias"])


def test_a_checkpoint_of_another_size_is_refused(network: Any) -> None:
    state = {key: tensor for key, tensor in network.state_dict().items() if "iou_token" not in key}
    with pytest.raises(
        WeightsInvalid, match=r"mine does not fit SamModel: 1 missing \(mask_decoder\.iou_token"
    ):
        load_into(sam.build("sam-tiny"), state, "mine")
