"""A folder of golden files: its arrays, and the deterministic weights and inputs that its `det.py` makes."""

from __future__ import annotations

import gzip
import importlib.util
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.audioclip import AudioCLIP
from tests.parity.row import ABSENT

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ROOT / "tests/data/golden"
VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"


class FolderInvalid(Exception):
    """A file of the folder cannot be read; the message says why."""


class FileAbsent(FolderInvalid):
    """The folder has no file of this group."""


class Arrays(dict[str, NDArray[Any]]):
    """The arrays of one file. One that it lacks is `ABSENT`, which nothing equals, and noted in `lacking`."""

    def __init__(self, arrays: Mapping[str, NDArray[Any]], lacking: list[str]) -> None:
        super().__init__(arrays)
        self.lacking = lacking

    def __missing__(self, name: str) -> NDArray[Any]:
        self.lacking.append(name)
        return ABSENT


@dataclass(frozen=True)
class Golden:
    """One folder. `det.py` of the folder itself is used where it has one, else the project's."""

    folder: Path
    lacking: list[str] = field(
        default_factory=list
    )  # arrays of the group in hand that were asked for in vain

    def arrays(self, group: str) -> Arrays:
        """Every array of `<group>.npz`."""
        self.lacking.clear()
        path = self.folder / f"{group}.npz"
        if not path.is_file():
            raise FileAbsent(f"this folder holds no {path.name}")
        try:
            with np.load(path) as arrays:
                return Arrays(arrays, self.lacking)
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

    def normal(self, seed: int, *shape: int) -> torch.Tensor:
        """Standard normal numbers, float32, by `det.rs(seed)`, or by NumPy's own where `det.py` has none."""
        source = getattr(self.det, "rs", np.random.RandomState)(seed)
        return torch.from_numpy(source.standard_normal(shape)).float()

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
