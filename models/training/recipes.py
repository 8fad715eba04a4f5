"""Training runs as functions: each returns a `Recipe`, and a recipe says everything that shapes the weights.

`acfpn_s4` and `acfpn_ms3` are the published runs to the constant; their arguments are the published
ablations (Tables 3 and 4, supplement 2 to 4), which `RECIPES` also lists by name. `tpavi_s4` and `tpavi_ms3`
are those of AVSBench's baseline. `tiny_acfpn` makes the weights shipped in `models/tiny`. Where the data lie,
on what they are trained and where the run is written are no part of a recipe.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from types import MappingProxyType
from typing import Any, Literal, ParamSpec

from pydantic import TypeAdapter

from models.acfpn import AcFpnConfig, FusionName, Upsampling
from models.audioclip.audio import AudioScale
from models.datasets.avsbench import Subset
from models.tpavi import BackboneName, TpaviConfig

Audio = Literal["trained", "left-out", "frozen"]
LossName = Literal["first-frame", "every-frame", "overlap", "first-frame-matching", "every-frame-matching"]
ImageStart = Literal["audioclip", "audioclip-tiny", "clip", "resnet50", "pvt-v2-b5", "random"]
AudioStart = Literal["audioclip", "audioclip-tiny", "esresnext", "vggish", "random"]
NetworkConfig = AcFpnConfig | TpaviConfig

PAPER_RATE = 5e-5
PAPER_BACKBONE = 0.1
PAPER_SEED = 123
PAPER_CLIPS = 4  # of five frames each
TPAVI_RATE = 1e-4


@dataclass(frozen=True)
class Recipe:
    """The defaults are what every published run of AC-FPN has in common."""

    name: str
    subset: Subset
    """Which part of AVSBench `--data PATH` is read as; `--data synth` takes SynthAVS in its place."""
    loss: LossName
    """`first-frame` judges each clip's first frame, `every-frame` all: cross-entropy of the sigmoid, as
    published. `overlap` adds a soft IoU of the frames that have a truth. `-matching` adds that what a mask
    covers is to look like what is heard, which TPAVI alone can say."""
    epochs: int
    network: NetworkConfig = field(default_factory=AcFpnConfig)
    size: int = 224
    """Pixels of a frame's side as the network sees it."""
    antialias: bool = False
    """Whether frames are smoothed when they shrink; the published loaders pick single pixels."""
    seconds: int = 5
    """How often a frame's second of sound is repeated before AC-FPN hears it."""
    audio_scale: AudioScale = "paper"
    """AC-FPN's too: `paper` as published, `int16` as AudioCLIP was trained."""
    image_start: ImageStart = "audioclip"
    audio_start: AudioStart = "audioclip"
    audio: Audio = "left-out"
    """`left-out` is the paper's frozen audio tower: not in the optimiser, while its batch norms go on
    training. `frozen` is truly frozen: in evaluation mode, without gradients."""
    fixed_filters: bool = False
    """The audio tower's filter bank stays the Fourier transform it starts as."""
    rate: float = PAPER_RATE
    backbone: float = PAPER_BACKBONE
    """The learning rate of everything under `aclp`, as a part of `rate`."""
    decay: float = 0.0
    """Weight decay; above 0, Adam becomes AdamW."""
    warmup: int = 0
    """Steps in which the rate rises from 0."""
    cosine: bool = False
    """Whether the rate then falls to 0 along half a cosine; else it stays."""
    clip: float | None = None
    """Largest norm of the gradients."""
    batch: int = PAPER_CLIPS
    """Clips of a step, over all devices."""
    clips: int | None = None
    """Clips of an epoch of SynthAVS; None takes the whole split."""
    fraction: float = 1.0
    """The part of the training split that is seen (supplement, Table 4)."""
    negatives: float = 0.0
    """The share of clips whose sound is exchanged for noise or a source out of view."""
    hints: float = 0.0
    """Weight of a second task, on SynthAVS alone: two layers, thrown away at the end, name what is heard and
    what every pixel shows. Without them, sound and sight wait for each other to mean something."""
    validate_every: int | None = None
    """Steps from one validation to the next; None means once an epoch."""
    best: Literal["mIoU", "mIoU+"] = "mIoU"
    """The validation score that says which weights are kept. The published mIoU rewards empty answers, which
    SynthAVS has many of; `mIoU+` looks at frames in which something sounds."""
    seed: int = PAPER_SEED

    @property
    def digest(self) -> str:
        """Sha256 of everything above: two runs with one digest differ in rounding only, if length, data,
        files to start from and code are the same too."""
        return hashlib.sha256(self.json.encode()).hexdigest()

    @property
    def json(self) -> str:
        """One line, keys in the order of the class."""
        return RECIPE.dump_json(self).decode()


RECIPE = TypeAdapter(Recipe)
Ablation = ParamSpec("Ablation")  # the arguments of the published runs


def acfpn_s4(
    fusion: FusionName = "hadamard",
    *,
    audio: Audio = "left-out",
    fraction: float = 1.0,
    image_start: ImageStart = "audioclip",
    audio_start: AudioStart = "audioclip",
    backbone: float = PAPER_BACKBONE,
    upsampling: Upsampling = "bilinear",
) -> Recipe:
    """Single sources: one mask a clip. An audio tower that starts at random is trained, as published."""
    return Recipe(
        name="acfpn_s4",
        subset="s4",
        loss="first-frame",
        epochs=70,
        network=AcFpnConfig(fusion=fusion, upsampling=upsampling),
        audio="trained" if audio_start == "random" else audio,
        fraction=fraction,
        image_start=image_start,
        audio_start=audio_start,
        backbone=backbone,
    )


def on_ms3(run: Callable[Ablation, Recipe]) -> Callable[Ablation, Recipe]:
    """The same run on several sources: a mask for every frame."""

    @wraps(run)
    def recipe(*positional: Ablation.args, **named: Ablation.kwargs) -> Recipe:
        made = run(*positional, **named)
        return replace(made, name="acfpn_ms3", subset="ms3", loss="every-frame", epochs=200)

    return recipe


acfpn_ms3 = on_ms3(acfpn_s4)


def tpavi(subset: Subset, loss: LossName, epochs: int, backbone: BackboneName, fraction: float) -> Recipe:
    """What both runs of TPAVI have in common: its whole network learns, at one rate; VGGish never does."""
    return Recipe(
        name=f"tpavi_{subset}",
        subset=subset,
        loss=loss,
        epochs=epochs,
        network=TpaviConfig.of(backbone),
        seconds=1,
        audio_scale="int16",
        image_start=backbone,
        audio_start="vggish",
        audio="frozen",
        rate=TPAVI_RATE,
        backbone=1.0,
        fraction=fraction,
    )


def tpavi_s4(
    backbone: BackboneName = "pvt-v2-b5",
    *,
    matching: bool = False,
    fraction: float = 1.0,
    epochs: int = 15,
) -> Recipe:
    """Single sources. `matching` is off in the published run."""
    loss: LossName = "first-frame-matching" if matching else "first-frame"
    return tpavi("s4", loss, epochs, backbone, fraction)


def tpavi_ms3(
    backbone: BackboneName = "pvt-v2-b5", *, matching: bool = True, fraction: float = 1.0, epochs: int = 30
) -> Recipe:
    """Several sources."""
    loss: LossName = "every-frame-matching" if matching else "every-frame"
    return tpavi("ms3", loss, epochs, backbone, fraction)


def tiny_acfpn(steps: int = 3500) -> Recipe:
    """The shipped network: as the paper's, it starts from the towers of AudioCLIP, here the tiny one."""
    batch, size = 3, 160
    network = AcFpnConfig.tiny()
    image = replace(network.audioclip.image, resolution=size)
    audioclip = replace(network.audioclip, image=image)
    return Recipe(
        name="tiny_acfpn",
        subset="ms3",
        loss="overlap",
        epochs=1,
        network=replace(network, audioclip=audioclip, head=64),
        size=size,
        antialias=True,
        seconds=1,
        audio_scale="int16",
        image_start="audioclip-tiny",
        audio_start="audioclip-tiny",
        audio="trained",
        fixed_filters=True,
        rate=2e-3,
        backbone=0.25,
        decay=1e-2,
        warmup=50,
        cosine=True,
        clip=5.0,
        batch=batch,
        clips=steps * batch,
        negatives=0.2,
        hints=1.0,
        validate_every=500,
        best="mIoU+",
        seed=0,
    )


# The published ablations: what a row of the tables changes in the run of its data set.
ABLATIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # Table 3: how sound enters the pyramid. "none" is the supplement's "No audio".
        "concat": {"fusion": "concat"},
        "normed_hadamard": {"fusion": "normed-hadamard"},
        "scoremap": {"fusion": "scoremap"},
        "audio_only": {"fusion": "audio-only"},
        "no_audio": {"fusion": "none"},
        # Table 4 and the supplement's 2: what the towers have seen before. The paper does not say whether
        # the backbone's rate was a tenth; `_full_rate` is the other one of the two scripts that exist.
        "image_resnet50": {"image_start": "resnet50"},
        "image_clip": {"image_start": "clip"},
        "audio_esresnext": {"audio_start": "esresnext"},
        "audio_random": {"audio_start": "random"},
        "supervised": {"image_start": "resnet50", "audio_start": "esresnext"},
        "supervised_full_rate": {"image_start": "resnet50", "audio_start": "esresnext", "backbone": 1.0},
        # The supplement's 3: the audio tower learns too. And what "frozen" should have meant.
        "audio_trained": {"audio": "trained"},
        "truly_frozen": {"audio": "frozen"},
        # The supplement's 4: less data, as many epochs.
        "20_percent": {"fraction": 0.2},
        "50_percent": {"fraction": 0.5},
    }
)

# TPAVI's, with the epochs that AC-FPN's authors gave it when there was less to see.
TPAVI_RUNS: Mapping[str, Callable[[], Recipe]] = MappingProxyType(
    {
        "tpavi_s4": tpavi_s4,
        "tpavi_ms3": tpavi_ms3,
        "tpavi_s4_resnet50": partial(tpavi_s4, "resnet50"),
        "tpavi_ms3_resnet50": partial(tpavi_ms3, "resnet50"),
        "tpavi_s4_matching": partial(tpavi_s4, matching=True),
        "tpavi_ms3_no_matching": partial(tpavi_ms3, matching=False),
        "tpavi_s4_20_percent": partial(tpavi_s4, fraction=0.2, epochs=50),
        "tpavi_s4_50_percent": partial(tpavi_s4, fraction=0.5, epochs=30),
        "tpavi_ms3_20_percent": partial(tpavi_ms3, fraction=0.2, epochs=80),
        "tpavi_ms3_50_percent": partial(tpavi_ms3, fraction=0.5, epochs=50),
    }
)

BASE: Mapping[str, Callable[..., Recipe]] = MappingProxyType({"acfpn_s4": acfpn_s4, "acfpn_ms3": acfpn_ms3})

RECIPES: Mapping[str, Callable[[], Recipe]] = MappingProxyType(
    {
        **BASE,
        **{
            f"{name}_{suffix}": partial(recipe, **changes)
            for name, recipe in BASE.items()
            for suffix, changes in ABLATIONS.items()
        },
        **TPAVI_RUNS,
        "tiny_acfpn": tiny_acfpn,
    }
)
