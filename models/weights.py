"""Weights as data: what each file is, where it comes from, and whether the copy here may be trusted.

Three kinds of name. A *network* (`sam`) is what the code asks for. A *weight* (`sam-vit-h`) is one file that
serves it. An *asset* (`bert-base-uncased`) is a vocabulary that a weight needs beside it. A network without
any weight in the folder falls back to the small one shipped in `models/tiny`, and its identity says so.

The folder holds `NAME.safetensors` files, assets as they came, and `weights.lock.json`: the sha256 of each,
written when the file was made and checked before the first load of every process. Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from models.errors import WeightsInvalid, WeightsMissing
from models.files import digest, metadata, replace_text

DEFAULT_FOLDER = Path.home() / ".cache" / "earshot"
TINY_FOLDER = Path(__file__).resolve().parent / "tiny"
LOCK = "weights.lock.json"
LOCKED = {"sha256", "bytes", "source", "source_sha256", "licence"}  # of each entry
FRAME, OBJECT = "agreement of a frame", "agreement of an object"  # what AudioCLIP is calibrated to
NAME = "cosine of a name"  # what AudioCLIP and CLAP are

AUDIOCLIP = "https://github.com/AndreyGuzhov/AudioCLIP/releases/download/v0.1"
SAM = "https://dl.fbaipublicfiles.com/segment_anything"
DINO = "https://github.com/IDEA-Research/GroundingDINO/releases/download"
VGGISH = "https://github.com/harritaylor/torchvggish/releases/download/v0.1"
HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Weight:
    """One downloadable file. `bytes` is exact where `sha256` is known, else a round figure for disk space.

    `importer` names the key rules in `models.checkpoints` that turn it into safetensors; None keeps the file
    as it is. `md5_prefix` is what segment-anything's authors publish, in the file's name; `sha256` is then
    the digest that several independent projects pin for the same file.
    """

    file: str
    url: str | None
    sha256: str | None
    bytes: int
    licence: str
    used_by: tuple[str, ...]
    importer: str | None = None
    needs: tuple[str, ...] = ()
    md5_prefix: str | None = None


def _sam(size: str, md5: str, sha256: str, length: int) -> Weight:
    file = f"sam_vit_{size}_{md5}.pth"
    return Weight(file, f"{SAM}/{file}", sha256, length, "Apache-2.0", ("sam",), "sam", (), md5)


WEIGHTS: Mapping[str, Weight] = MappingProxyType(
    {
        "audioclip": Weight(
            file="AudioCLIP-Full-Training.pt",
            url=f"{AUDIOCLIP}/AudioCLIP-Full-Training.pt",
            # From the pointer to the same file (Git LFS) in the authors' repository.
            sha256="2441d35b353352c8b1bbfb8f7c687f46314c3d2909e940eaf763b8c17f632c44",
            bytes=537_302_068,
            licence="MIT",
            used_by=("audioclip",),
            importer="audioclip",
            needs=("audioclip-bpe",),
        ),
        "audioclip-bpe": Weight(
            file="bpe_simple_vocab_16e6.txt.gz",
            url=f"{AUDIOCLIP}/bpe_simple_vocab_16e6.txt.gz",
            sha256="924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a",
            bytes=1_356_917,
            licence="MIT",
            used_by=("audioclip",),
        ),
        "ac-fpn": Weight(
            file="ac-fpn.pth",
            url=None,  # trained here, or imported from a checkpoint of the authors' code
            sha256=None,
            bytes=560_000_000,
            licence="Apache-2.0 for a file trained here; AudioCLIP's MIT applies to the towers inside",
            used_by=("ac-fpn",),
            importer="ac-fpn",
        ),
        "tpavi": Weight(
            file="tpavi.pth",
            url=None,  # trained here, or imported from a checkpoint of the authors' code
            sha256=None,
            bytes=410_000_000,
            licence="Apache-2.0 for a file trained here; that of its backbone's first weights applies too",
            used_by=("tpavi",),
            importer="tpavi",
        ),
        "vggish": Weight(
            file="vggish-10086976.pth",
            url=f"{VGGISH}/vggish-10086976.pth",
            sha256=None,  # only its beginning is published, in the name: the first download records the rest
            bytes=289_000_000,
            licence="Apache-2.0",
            used_by=("vggish",),
            importer="vggish",
        ),
        "sam-vit-h": _sam(
            "h", "4b8939", "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e", 2_564_550_879
        ),
        "sam-vit-l": _sam(
            "l", "0b3195", "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622", 1_249_524_607
        ),
        "sam-vit-b": _sam(
            "b", "01ec64", "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912", 375_042_383
        ),
        "grounding-dino-swin-b": Weight(
            file="groundingdino_swinb_cogcoor.pth",
            url=f"{DINO}/v0.1.0-alpha2/groundingdino_swinb_cogcoor.pth",
            sha256="46270f7a822e6906b655b729c90613e48929d0f2bb8b9b76fd10a856f3ac6ab7",
            bytes=938_057_991,
            licence="Apache-2.0",
            used_by=("grounding-dino",),
            importer="grounding-dino",
            needs=("bert-base-uncased",),
        ),
        "grounding-dino-swin-t": Weight(
            file="groundingdino_swint_ogc.pth",
            url=f"{DINO}/v0.1.0-alpha/groundingdino_swint_ogc.pth",
            sha256="3b3ca2563c77c69f651d7bd133e97139c186df06231157a64c507099c52bc799",
            bytes=693_997_677,
            licence="Apache-2.0",
            used_by=("grounding-dino",),
            importer="grounding-dino",
            needs=("bert-base-uncased",),
        ),
        "bert-base-uncased": Weight(
            file="bert-base-uncased-vocab.txt",
            url=f"{HUB}/google-bert/bert-base-uncased/resolve/main/vocab.txt",
            sha256="07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            bytes=231_508,
            licence="Apache-2.0",
            used_by=("grounding-dino",),
        ),
        "clap-630k-audioset-best": Weight(
            file="630k-audioset-best.pt",
            url=f"{HUB}/lukewys/laion_clap/resolve/main/630k-audioset-best.pt",
            sha256=None,  # none that we could confirm: the first download records it
            bytes=1_860_000_000,
            licence="CC0-1.0",
            used_by=("clap",),
            importer="clap",
            needs=("roberta-base-vocab", "roberta-base-merges"),
        ),
        "roberta-base-vocab": Weight(
            file="roberta-base-vocab.json",
            url=f"{HUB}/FacebookAI/roberta-base/resolve/main/vocab.json",
            sha256="9e7f63c2d15d666b52e21d250d2e513b87c9b713cfa6987a82ed89e5e6e50655",
            bytes=898_823,
            licence="MIT",
            used_by=("clap",),
        ),
        "roberta-base-merges": Weight(
            file="roberta-base-merges.txt",
            url=f"{HUB}/FacebookAI/roberta-base/resolve/main/merges.txt",
            sha256="1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
            bytes=456_318,
            licence="MIT",
            used_by=("clap",),
        ),
    }
)

# A network -> the weights that can serve it, the one to fetch first; installed ones are tried in this order.
NETWORKS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "audioclip": ("audioclip",),
        "ac-fpn": ("ac-fpn",),
        "tpavi": ("tpavi",),
        "vggish": ("vggish",),
        "sam": ("sam-vit-h", "sam-vit-l", "sam-vit-b"),
        "grounding-dino": ("grounding-dino-swin-b", "grounding-dino-swin-t"),
        "clap": ("clap-630k-audioset-best",),
    }
)


@dataclass(frozen=True)
class Identity:
    """Which weights answer: goes into every result, so that a number can be traced to a file."""

    id: str
    sha256: str
    licence: str
    family: Literal["published", "tiny"]


class Weights:
    """The weights folder. Cheap to make; reads the disk when asked, and hashes each file once a process.

    `prefer` chooses among the weights of a network, e.g. {"sam": "sam-vit-b"}; {"sam": "sam-tiny"} forces the
    shipped one.
    """

    def __init__(
        self,
        folder: Path | str = DEFAULT_FOLDER,
        *,
        prefer: Mapping[str, str] = MappingProxyType({}),
        registry: Mapping[str, Weight] = WEIGHTS,
        tiny: Path = TINY_FOLDER,
    ) -> None:
        self.folder, self.registry, self.tiny = Path(folder).expanduser(), registry, tiny
        self.prefer = dict(prefer)
        for network, choice in self.prefer.items():
            if choice not in self.variants(network):
                known = ", ".join(self.variants(network))
                raise WeightsMissing(f"The network {network} has no weights named {choice}: choose {known}.")

    def variants(self, network: str) -> tuple[str, ...]:
        """The names that can serve a network, best first, the shipped one last; a weight serves itself."""
        if network in NETWORKS:
            return (*NETWORKS[network], f"{network}-tiny")
        if network in self.registry or is_tiny(network):
            return (network,)
        known = ", ".join(dict.fromkeys([*NETWORKS, *self.registry]))
        raise WeightsMissing(f"There are no weights named {network}. Known names: {known}.")

    def resolve(self, name: str) -> str:
        """The installed weight that serves this network, or this weight itself; else WeightsMissing."""
        choices = (self.prefer[name],) if name in self.prefer else self.variants(name)
        for choice in choices:
            if self.present(choice):
                return choice
        raise WeightsMissing(self.missing([name]))

    def missing(self, networks: Sequence[str]) -> str:
        """That these are not installed, and what installs all of them at once."""
        wanted = [self.prefer.get(name) or self.variants(name)[0] for name in networks]
        return f"The weights {' and '.join(wanted)} are not installed. {self._remedy(*wanted)}"

    def installed(self, name: str) -> bool:
        """Whether `path(name)` would find a file, with the assets it needs. Hashes nothing."""
        try:
            self.resolve(name)
        except WeightsMissing:
            return False
        return True

    def path(self, name: str) -> Path:
        """The file to load, its hash checked. WeightsMissing and WeightsInvalid say what to do."""
        resolved = self.resolve(name)
        path = self.file(resolved)
        expected = self.lock(resolved)["sha256"]
        actual = digest(path)
        if actual != expected:
            raise WeightsInvalid(
                f"{path.name} is not the file it was: its sha256 is {actual}, recorded was {expected}. "
                f"{self._remedy(resolved)}"
            )
        if path.suffix == ".safetensors":
            metadata(path)
        return path

    def original(self, network: str) -> Path:
        """The checkpoint as published, from which the installed weight was made: the original packages read
        no other. Its hash is checked."""
        name = self.resolve(network)
        if is_tiny(name):
            fetched = NETWORKS[network][0]
            raise WeightsMissing(
                f"The original packages cannot run {name}. Install a published network with: "
                f"python -m service weights fetch {fetched} --keep"
            )
        path = self.folder / self.registry[name].file
        keep = f"Get it: python -m service weights fetch {name} --keep"
        if not path.is_file():
            raise WeightsMissing(f"The original packages read {path.name}, which was not kept. {keep}")
        if digest(path) != self.lock(name)["source_sha256"]:
            raise WeightsInvalid(f"{path.name} is not what {name} was made from. Delete it. {keep}")
        return path

    def identity(self, name: str) -> Identity:
        """What answers for this name, from the lock file: no hashing."""
        resolved = self.resolve(name)
        entry = self.lock(resolved)
        family: Literal["published", "tiny"] = "tiny" if is_tiny(resolved) else "published"
        return Identity(resolved, entry["sha256"], entry["licence"], family)

    def calibration(self, name: str) -> Mapping[str, float]:
        """Thresholds that were measured with the installed weight of this name; empty if nobody did. They
        stand in its lock entry, and go when other weights take its place."""
        return dict(self.lock(self.resolve(name)).get("calibration", {})) if self.installed(name) else {}

    def calibrate(self, name: str, thresholds: Mapping[str, float]) -> None:
        """Write them."""
        resolved = self.resolve(name)
        folder = self.file(resolved).parent
        entries = read_lock(folder)
        write_lock(folder, entries | {resolved: {**entries[resolved], "calibration": dict(thresholds)}})

    def file(self, name: str) -> Path:
        """Where a weight lies, or would lie, once imported."""
        if is_tiny(name):
            return self.tiny / f"{name.removesuffix('-tiny')}.safetensors"
        weight = self.registry[name]
        return self.folder / (weight.file if weight.importer is None else f"{name}.safetensors")

    def lock(self, name: str) -> dict[str, Any]:
        """What was recorded when the file was made: sha256, bytes, source, licence; empty if nothing was."""
        entry = read_lock(self.tiny if is_tiny(name) else self.folder).get(name, {})
        return dict(entry)

    def present(self, name: str) -> bool:
        """Whether the file of this very weight is there, recorded, with the assets it needs."""
        needs = () if is_tiny(name) else self.registry[name].needs
        return self.file(name).is_file() and bool(self.lock(name)) and all(map(self.present, needs))

    def _remedy(self, *names: str) -> str:
        if any(is_tiny(name) for name in names):
            return "It is shipped in models/tiny: restore that folder from the repository."
        yours = [name for name in names if self.registry[name].url is None]
        public = [name for name in names if name not in yours]
        fetch = [f"python -m service weights fetch {' '.join(public)}"] if public else []
        commands = fetch + [f"python -m service weights import {name} FILE" for name in yours]
        return f"Install them with `{' && '.join(commands)}`."


def is_tiny(name: str) -> bool:
    """Whether the name is of the shipped family: `sam-tiny`, `clap-tiny`, ..."""
    return name.removesuffix("-tiny") in NETWORKS and name.endswith("-tiny")


def read_lock(folder: Path) -> dict[str, Any]:
    """The lock file of a folder, name -> entry; empty when there is none."""
    path = folder / LOCK
    try:
        entries = dict(json.loads(path.read_text()))
        if not all(isinstance(entry, dict) and entry.keys() >= LOCKED for entry in entries.values()):
            raise ValueError("an entry is incomplete")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise WeightsInvalid(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError) as error:
        raise WeightsInvalid(f"{path} is damaged: {error}. Delete it and fetch again.") from error
    return entries


def record(folder: Path, name: str, path: Path, *, source: str, source_sha256: str, licence: str) -> None:
    """Write the hash of a file just made into the folder's lock file, replacing it whole.

    `source_sha256` is that of the file it was made from: what a later download must have again.
    """
    entry = {
        "file": path.name,
        "sha256": digest(path),
        "bytes": path.stat().st_size,
        "source": source,
        "source_sha256": source_sha256,
        "licence": licence,
    }
    write_lock(folder, read_lock(folder) | {name: entry})


def write_lock(folder: Path, entries: Mapping[str, Any]) -> None:
    """The lock file of a folder, replaced whole."""
    replace_text(folder / LOCK, json.dumps(dict(sorted(entries.items())), indent=2) + "\n")
