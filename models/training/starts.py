"""What the towers have seen before training: AudioCLIP's own weights, or those of the published ablations.

Every source is one file and a rule for its keys. AudioCLIP's are the installed ones; the others are files of
the user's, because nobody publishes them under a hash that we could check.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from torch import Tensor, nn

from models.acfpn import ACFPN
from models.checkpoints import State, read_checkpoint
from models.errors import WeightsInvalid, WeightsMissing
from models.tpavi import TPAVI
from models.training.recipes import Recipe
from models.vggish import Vggish, load_vggish
from models.weights import Weights


@dataclass(frozen=True)
class Source:
    """Which keys of a file a tower takes: those that `takes` matches, without `prefix` and without what
    `leaves` matches; `arranges` renames the rest. What they leave stays random."""

    prefix: str = ""
    takes: str = ""
    leaves: str = r"(?!)"
    arranges: Callable[[State], State] = dict

    def of(self, state: Mapping[str, Tensor]) -> State:
        """The tower's part of a checkpoint."""
        chosen = {key: tensor for key, tensor in state.items() if re.match(self.takes, key)}
        kept = {key: tensor for key, tensor in chosen.items() if not re.match(self.leaves, key)}
        return self.arranges({key.removeprefix(self.prefix): tensor for key, tensor in kept.items()})


def branched(state: State) -> State:
    """ResNet's upper half, for both branches of TPAVI's."""
    result: State = {}
    for key, tensor in state.items():
        stage, _, rest = key.partition(".")
        places = (f"{stage}_1", f"{stage}_2") if stage in ("layer3", "layer4") else (stage,)
        result |= {f"{place}.{rest}": tensor for place in places}
    return result


IMAGE: Mapping[str, Source] = MappingProxyType(
    {
        "audioclip": Source(prefix="visual.", takes=r"visual\."),
        # Its positions are those of another grid.
        "audioclip-tiny": Source(prefix="visual.", takes=r"visual\.", leaves=r".*positional_embedding"),
        "clip": Source(prefix="visual.", takes=r"visual\."),
        # torchvision's: its stem has one convolution where CLIP's has three, and it ends in classes.
        "resnet50": Source(leaves=r"conv1|bn1|fc\."),
    }
)
AUDIO: Mapping[str, Source] = MappingProxyType(
    {
        "audioclip": Source(prefix="audio.", takes=r"audio\."),
        "audioclip-tiny": Source(prefix="audio.", takes=r"audio\."),
        "esresnext": Source(leaves=r"fc\."),
    }
)


# Of ImageNet: torchvision's, and PVT's authors'. Both end in classes.
TPAVI_IMAGE: Mapping[str, Source] = MappingProxyType(
    {
        "resnet50": Source(leaves=r"fc\.", arranges=branched),
        "pvt-v2-b5": Source(leaves=r"head\."),
    }
)


@dataclass(frozen=True)
class Files:
    """Checkpoints named on the command line; None takes what is installed: AudioCLIP, which has both towers,
    or VGGish."""

    image: Path | None = None
    audio: Path | None = None
    whole: Path | None = None
    """A whole network to go on from, in place of both."""


def start_acfpn(network: ACFPN, recipe: Recipe, files: Files, weights: Weights) -> None:
    """Fill the towers as the recipe says."""
    if files.whole is not None:
        fill(network, existing(files.whole), Source(), strict=True)
        return
    towers = (
        (network.aclp.visual, recipe.image_start, IMAGE, files.image),
        (network.aclp.audio, recipe.audio_start, AUDIO, files.audio),
    )
    for tower, name, sources, file in towers:
        if name != "random":
            fill(tower, found(name, file, weights), sources[name], strict=name == "audioclip")


def start_tpavi(network: TPAVI, recipe: Recipe, files: Files, weights: Weights) -> None:
    """Fill the backbone as the recipe says."""
    if files.whole is not None:
        fill(network, existing(files.whole), Source(), strict=True)
    elif recipe.image_start != "random":
        path = found(recipe.image_start, files.image, weights)
        fill(network.backbone, path, TPAVI_IMAGE[recipe.image_start], strict=True)


def ears(files: Files, weights: Weights) -> Vggish:
    """The VGGish that TPAVI hears with."""
    return load_vggish(weights.path("vggish") if files.audio is None else existing(files.audio))


def found(name: str, file: Path | None, weights: Weights) -> Path:
    """The file of a source."""
    if file is not None:
        return existing(file)
    if name == "audioclip-tiny":
        return weights.path(name)
    if name == "audioclip":
        if weights.identity("audioclip").family == "tiny":
            raise WeightsMissing(
                "This recipe starts from AudioCLIP, which is not installed. "
                "Install it with: python -m service weights fetch audioclip"
            )
        return weights.path("audioclip")
    raise WeightsMissing(
        f"This recipe starts from {name}: name its file with --image-weights or --audio-weights."
    )


def existing(path: Path) -> Path:
    if not path.is_file():
        raise WeightsMissing(f"There is no file {path}.")
    return path


def fill(module: nn.Module, path: Path, source: Source, *, strict: bool) -> None:
    """Load a file's part; every key must have its place, and with `strict` every place its key."""
    state = source.of(read_checkpoint(path))
    own = module.state_dict()
    odd = [key for key in state if key not in own or own[key].shape != state[key].shape]
    # Old files of torchvision do not count batches, and nothing depends on it.
    needed = [key for key in own if not key.endswith("num_batches_tracked")]
    missing = [key for key in needed if key not in state] if strict else []
    if odd or missing or not state:
        what = ", ".join((odd + missing)[:3]) or "no key of this tower is in it"
        raise WeightsInvalid(f"{path} is a checkpoint of another architecture: {what}.")
    module.load_state_dict(state, strict=False)
