"""Fill the weights folder: download, check, import, record. Torch is imported only where tensors are read.

Two processes may work on one folder: files appear whole, and the lock file is replaced whole.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from models.download import download, require_space
from models.errors import WeightsInvalid, WeightsMissing
from models.files import digest, hash_file, metadata
from models.weights import NETWORKS, Weight, Weights, is_tiny, record

if TYPE_CHECKING:
    from torch import Tensor

# Where `build(name)` makes the network that imported tensors must fit, key for key and shape for shape.
BUILDERS: Mapping[str, str] = MappingProxyType(
    {
        "audioclip": "models.audioclip",
        "sam": "models.sam",
        "grounding-dino": "models.grounding_dino",
        "clap": "models.clap",
        "vggish": "models.vggish",
    }
)
# Module and class of those whose shapes depend on how they were trained, hence on the file: `config_of` says
# what it is, and `metadata_of` what the imported file will say of itself.
TRAINED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {"ac-fpn": ("models.acfpn", "ACFPN"), "tpavi": ("models.tpavi", "TPAVI")}
)


def fetch(weights: Weights, name: str, *, keep: bool = False, progress: bool = True) -> Path:
    """Download and import a weight, or the first choice of a network, and the assets it needs.

    What is installed already is not fetched again. `keep` leaves the original beside the imported file, as
    the official packages need it.
    """
    name = NETWORKS[name][0] if name in NETWORKS else name
    weight = _known(weights, name)
    for needed in weight.needs:
        fetch(weights, needed, progress=progress)
    original = weights.folder / weight.file
    if weights.installed(name) and (original.is_file() or not keep):
        return weights.path(name)
    if weight.url is None:
        raise WeightsMissing(f"The weights {name} have no public source. Train them, or import a checkpoint.")
    folder = _made(weights.folder)
    if weight.importer is not None:
        require_space(folder, 2 * weight.bytes)
    if not original.is_file():
        download(
            weight.url,
            original,
            size=weight.bytes,
            check=lambda path: _check(path, weights, name),
            progress=progress,
        )
    path = import_checkpoint(weights, name, original)
    if weight.importer is not None and not keep:
        original.unlink()
    return path


def import_checkpoint(weights: Weights, name: str, source: Path, *, trust: bool = False) -> Path:
    """Turn a file on this disk into an installed weight; nothing is written unless all of it fits.

    `trust` accepts a file other than the published one, e.g. a fine-tuned checkpoint.
    """
    weight = _known(weights, name)
    if not source.is_file():
        raise WeightsMissing(f"There is no file {source}.")
    if not trust:
        _check(source, weights, name)
    target = weights.file(name)
    require_space(_made(weights.folder), source.stat().st_size)
    if weight.importer is not None:
        _convert(weight.importer, name, source, target)
    elif source.resolve() != target.resolve():
        copy = target.with_name(f".{target.name}.copy")
        shutil.copyfile(source, copy)
        copy.replace(target)
    _record(weights, name, target, weight, source)
    return target


def install_trained(
    weights: Weights, name: str, state: Mapping[str, Tensor], *, source: str, licence: str = "Apache-2.0"
) -> Path:
    """Install tensors trained here, under a weight's name or, as `sam-tiny`, in the shipped family."""
    from models.checkpoints import write_safetensors  # noqa: PLC0415

    target = weights.file(name)
    write_safetensors(target, state, {"earshot": name, "source": source})
    record(
        target.parent,
        name,
        target,
        source=source,
        source_sha256=digest(target),
        licence=licence,
    )
    return target


def verify(weights: Weights, names: tuple[str, ...] = ()) -> Iterator[tuple[str, str | None]]:
    """Hash every installed file, or those named: (name, what is wrong or None)."""
    every = (*weights.registry, *(f"{network}-tiny" for network in NETWORKS))
    chosen = names or tuple(name for name in every if weights.file(name).is_file())
    for name in chosen:
        try:
            weights.path(name)
        except (WeightsMissing, WeightsInvalid) as error:
            yield name, str(error)
        else:
            yield name, None


def _known(weights: Weights, name: str) -> Weight:
    if is_tiny(name):
        raise WeightsMissing(f"{name} is shipped in models/tiny and cannot be fetched or imported.")
    names = weights.variants(name)
    if name not in weights.registry:
        raise WeightsMissing(f"{name} is a network; name one of its weights: {', '.join(names[:-1])}.")
    return weights.registry[name]


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsMissing(f"The weights folder {folder} cannot be made: {error.strerror}.") from error
    return folder


def _check(path: Path, weights: Weights, name: str) -> None:
    """The file against the published hash, else against the one that the first download recorded."""
    if path.suffix == ".safetensors" and metadata(path).get("earshot") == name:
        return  # imported elsewhere; the hash of what it was made from is not ours to see
    weight = weights.registry[name]
    # What is trained here changes with each training; what is downloaded does not.
    expected = weight.sha256 or (weights.lock(name).get("source_sha256") if weight.url else None)
    actual = digest(path)
    if expected and actual != expected:
        raise WeightsInvalid(
            f"{weight.file} has the wrong sha256: {actual}, expected {expected}. Get it again."
        )
    if weight.md5_prefix and not hash_file(path, "md5").startswith(weight.md5_prefix):
        raise WeightsInvalid(f"{weight.file} does not begin with the MD5 in its name, {weight.md5_prefix}.")


def _convert(importer: str, name: str, source: Path, target: Path) -> None:
    """Original checkpoint -> our safetensors, through the key rules and a strict look at the network."""
    import torch  # noqa: PLC0415

    from models.checkpoints import check_fit, read_checkpoint, write_safetensors  # noqa: PLC0415
    from models.key_rules import RULES  # noqa: PLC0415

    state = read_checkpoint(source)
    if source.suffix != ".safetensors" or metadata(source).get("earshot") != name:
        state = RULES[importer].apply(state)
    described: dict[str, str] = {}
    with torch.device("meta"):  # names and shapes, no memory
        if importer in BUILDERS:
            network = importlib.import_module(BUILDERS[importer]).build(name)
        else:
            name_of_module, class_of_network = TRAINED[importer]
            module = importlib.import_module(name_of_module)
            config = module.config_of(source, state)
            network = getattr(module, class_of_network)(config)
            described = module.metadata_of(config)
    check_fit(network, state, source.name)
    origin = {"earshot": name, "source": source.name, "source_sha256": digest(source)}
    write_safetensors(target, state, origin | described)


def _record(weights: Weights, name: str, target: Path, weight: Weight, source: Path) -> None:
    sha256 = digest(source)
    published = weight.sha256 is None or sha256 == weight.sha256
    record(
        weights.folder,
        name,
        target,
        source=weight.url if published and weight.url else source.name,
        source_sha256=sha256,
        licence=weight.licence if published else "not stated",
    )
