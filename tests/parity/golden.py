"""A folder of golden files: its arrays, and the deterministic weights and inputs that its `det.py` makes."""

from __future__ import annotations

import gzip
import importlib.util
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.audioclip import AudioCLIP

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ROOT / "tests/data/golden"
VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"


class FolderInvalid(Exception):
    """The folder is not one of golden files; the message says why."""


class Arrays(dict[str, NDArray[Any]]):
    """The arrays of one file. Asking for one that it lacks is the folder's fault, and the message says so."""

    def __init__(self, path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
        super().__init__(arrays)
        self.path = path

    def __missing__(self, name: str) -> NDArray[Any]:
        raise FolderInvalid(f"{self.path} lacks the array {name}.")


@dataclass(frozen=True)
class Golden:
    """One folder. `det.py` of the folder itself is used where it has one, else the project's."""

    folder: Path

    def arrays(self, group: str) -> Arrays:
        """Every array of `<group>.npz`."""
        path = self.folder / f"{group}.npz"
        if not path.is_file():
            raise FolderInvalid(f"{self.folder} holds no {path.name}, so it is no folder of golden files.")
        try:
            with np.load(path) as arrays:
                return Arrays(path, arrays)
        except (OSError, ValueError, zipfile.BadZipFile) as broken:
            raise FolderInvalid(f"{path} cannot be read as an .npz file: {broken}.") from broken

    @cached_property
    def det(self) -> ModuleType:
        """The module with `det(key, shape)`, `waves()`, `images(n, size, seed)` and `stats(tensor)`."""
        own = self.folder / "det.py"
        path = own if own.is_file() else DEFAULT / "det.py"
        spec = importlib.util.spec_from_file_location("golden_det", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def fill(self, network: nn.Module, prefix: str = "") -> None:
        """Give every tensor of `network` the value that `det` makes from its name, and set it to eval mode.

        `prefix` comes before its names. `audio.window` stays as we build it: the golden files check it.
        """
        with torch.no_grad():
            for key, tensor in network.state_dict().items():
                if not key.endswith("audio.window"):
                    tensor.copy_(torch.from_numpy(self.det.det(prefix + key, tuple(tensor.shape))))
        network.eval()

    @cached_property
    def audioclip(self) -> AudioCLIP:
        """AudioCLIP in full size with this folder's weights: shared by the groups, so nobody may train it."""
        network = AudioCLIP()
        self.fill(network)
        return network

    @cached_property
    def waves(self) -> torch.Tensor:
        """The folder's seconds of sound, float32 [n, samples] in about [-1, 1]."""
        return torch.from_numpy(self.det.waves())


def vocabulary() -> Path | None:
    """The BPE vocabulary, which is not ours to commit: None where this machine has none."""
    beside = ROOT.parent / "shared/reference" / VOCABULARY
    cached = Path.home() / ".cache/earshot" / VOCABULARY
    for path in (beside, cached):
        if path.is_file() and path.read_bytes()[:2] == gzip.compress(b"")[:2]:
            return path
    return None
