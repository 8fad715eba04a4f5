"""Other people's checkpoints become safetensors: read without running code, renamed by table, written whole.

A `.pt` file is a pickle, and a pickle is a program. It is read by torch's restricted reader, which knows
tensors and containers and nothing else. Some files carry the training run's record beside the tensors (an
`argparse.Namespace`, NumPy numbers): those few classes are read as `Ignored`, an object that swallows what it
is given. Anything else is refused; nothing is ever read with the restriction off.
"""

from __future__ import annotations

import os
import pickle
import re
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models.errors import WeightsInvalid, WeightsMissing
from models.files import metadata

State = dict[str, Tensor]
Config = TypeVar("Config")

RECORDS = (
    "argparse.Namespace",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
)
WRAPPERS = ("state_dict", "model", "module", "model_state_dict")  # where training loops put the tensors
NESTED = 4  # wrappers within wrappers; a hostile file may hold itself
CONSTANTS = ("position_ids", "token_type_ids", "relative_position_index")  # index tables, not weights
NAMES_SHOWN = 5  # keys that an error message lists


class Ignored:
    """Stands for an object of the training run that we do not want: takes anything, keeps nothing."""

    def __init__(self, *_args: object) -> None: ...

    def __setstate__(self, state: object) -> None: ...


@dataclass(frozen=True)
class Rules:
    """How one checkpoint layout becomes ours, as tables of regular expressions over key names.

    In order: `drop` what is no weight of the network; cut each tensor that `split` matches into equal parts
    along its first dimension, one for each replacement; apply every pair of `rename`. Two keys that get the
    same name must hold equal tensors, and are kept once.
    """

    drop: tuple[str, ...] = ()
    split: tuple[tuple[str, tuple[str, ...]], ...] = ()
    rename: tuple[tuple[str, str], ...] = ()

    def apply(self, state: Mapping[str, Tensor]) -> State:
        """The renamed tensors; WeightsInvalid when two different ones claim a name."""
        dropped = re.compile("|".join(self.drop) or r"(?!)")
        result: State = {}
        for key, tensor in state.items():
            if dropped.search(key):
                continue
            for name, part in self._parts(key, tensor):
                new = self._renamed(name)
                if new in result and not torch.equal(result[new], part):
                    raise WeightsInvalid(f"This checkpoint holds two different tensors for {new}.")
                result[new] = part
        return result

    def _parts(self, key: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
        for pattern, names in self.split:
            if re.search(pattern, key):
                parts = tensor.chunk(len(names))
                return [(re.sub(pattern, name, key), part) for name, part in zip(names, parts, strict=True)]
        return [(key, tensor)]

    def _renamed(self, key: str) -> str:
        for pattern, replacement in self.rename:
            key = re.sub(pattern, replacement, key)
        return key


def read_checkpoint(path: Path) -> State:
    """The tensors of a `.pt`, `.pth` or `.safetensors` file, on the CPU, without `module.` before names.

    WeightsInvalid when the file is cut short, holds no tensors, or would run code.
    """
    if not path.is_file():
        raise WeightsMissing(f"There is no file {path}.")
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    try:
        with (
            warnings.catch_warnings(),
            torch.serialization.safe_globals([(Ignored, name) for name in RECORDS]),
        ):
            # Whether the file can be read is said below, in a sentence.
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            # A zip archive can be mapped instead of read; files from before PyTorch 1.6 cannot.
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise WeightsInvalid(_refusal(path, str(error))) from error
    except (OSError, RuntimeError, EOFError, LookupError, ValueError, AttributeError, TypeError) as error:
        raise WeightsInvalid(f"{path.name} is empty, corrupt or no checkpoint of PyTorch.") from error
    state = _tensors(content)
    if not state:
        raise WeightsInvalid(f"{path.name} holds no tensors under any of the names that we know.")
    return {key.removeprefix("module."): tensor for key, tensor in state.items()}


def _refusal(path: Path, message: str) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", message)
    if found:
        return (
            f"{path.name} is refused: reading it would call {found[1]}. A checkpoint must hold tensors and "
            "plain containers only; ask its author for a state dict, or for safetensors."
        )
    return f"{path.name} is corrupt or no checkpoint that can be read without running code."


def _tensors(content: object) -> State:
    """The state dict inside the wrappers of a training loop."""
    for _ in range(NESTED):
        if not isinstance(content, Mapping):
            break
        inner = next((content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if inner is None:
            return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        content = inner
    return {}


def read_safetensors(path: Path) -> State:
    """All tensors of a safetensors file, on the CPU."""
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsInvalid(f"{path.name} is cut short or no safetensors file: {error}.") from error


def write_safetensors(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write the tensors under a temporary name in the same folder, then rename: whole, or not at all.

    A tensor that several names share is written once, under the first of them in sorted order.
    """
    once: State = {}
    seen: set[tuple[int, tuple[int, ...], tuple[int, ...]]] = set()
    for key in sorted(state):
        tensor = state[key].detach()
        place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        if tensor.numel() and place in seen:
            continue
        seen.add(place)
        once[key] = tensor.cpu().contiguous().clone()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        os.close(handle)
        save_file(once, temporary, metadata={"format": "pt", **metadata})
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def described(path: Path, sizes: TypeAdapter[Config]) -> Config | None:
    """The network that a file's metadata describes; None if it does not."""
    told = metadata(path).get("config") if path.suffix == ".safetensors" else None
    try:
        return None if told is None else sizes.validate_json(told)
    except ValidationError as problem:
        raise WeightsInvalid(f"{path.name} describes a network that this version does not know.") from problem


def weights_of(network: nn.Module) -> State:
    """Its parameters and buffers by name, without the index tables that its constructor computes."""
    state: State = network.state_dict(keep_vars=True)
    return {key: tensor for key, tensor in state.items() if not key.endswith(CONSTANTS)}


def check_fit(network: nn.Module, state: Mapping[str, Tensor], source: str) -> State:
    """The full state dict of the network, or WeightsInvalid with the keys that are missing, odd or misshapen.

    A parameter that the network uses under several names may come under any of them.
    """
    own = weights_of(network)
    given = {id(tensor): state[key] for key, tensor in own.items() if key in state}
    full = {key: given[id(tensor)] for key, tensor in own.items() if id(tensor) in given}
    problems = {
        "missing": [key for key in own if key not in full],
        "unexpected": [key for key in state if key not in own and not key.endswith(CONSTANTS)],
        "of another shape": [key for key in full if full[key].shape != own[key].shape],
        "of another kind": [key for key in full if kind_of(full[key]) != kind_of(own[key])],
    }
    told = [f"{len(keys)} {what} ({_listed(keys)})" for what, keys in problems.items() if keys]
    if told:
        raise WeightsInvalid(f"{source} does not fit {type(network).__name__}: {', '.join(told)}.")
    return full


def kind_of(tensor: Tensor) -> tuple[bool, bool, bool]:
    """What a copy into another tensor must not change; the precision of its numbers it may."""
    return tensor.is_floating_point(), tensor.is_complex(), tensor.layout == torch.strided


def load_into(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load, strictly: every weight of the network, and no other."""
    network.load_state_dict(check_fit(network, state, source), strict=False)  # index tables stay as built


def _listed(keys: list[str]) -> str:
    shown = ", ".join(sorted(keys)[:NAMES_SHOWN])
    return shown if len(keys) <= NAMES_SHOWN else f"{shown}, ..."
