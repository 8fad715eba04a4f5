"""The networks of a process: each is loaded once, when first asked for, and shared by all threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, TypeVar

import torch

from models.batching import Batcher
from models.errors import WeightsMissing
from models.weights import Identity, Weights

T = TypeVar("T")

# A network -> the module whose `load(weights, device)` builds it. By name, because some import transformers.
MODULES: Mapping[str, str] = MappingProxyType(
    {
        "audioclip": "models.audioclip",
        "ac-fpn": "models.acfpn",
        "tpavi": "models.tpavi",
        "vggish": "models.vggish",
        "sam": "models.sam",
        "grounding-dino": "models.grounding_dino",
        "clap": "models.clap",
    }
)


class Networks:
    """What strategies are built from: networks by name, and the batcher that all their calls go through."""

    def __init__(self, device: torch.device | str, weights: Weights, batcher: Batcher | None = None) -> None:
        self.device, self.weights, self.batcher = torch.device(device), weights, batcher or Batcher()
        self._loaded: dict[str, Any] = {}
        self._locks = {name: threading.Lock() for name in MODULES}
        self._shared: dict[Callable[[Networks], Any], Any] = {}
        self._sharing = threading.RLock()  # what is shared may be built from what is shared

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401
        """The network, in evaluation mode on the device. WeightsMissing says what to install."""
        if name not in MODULES:
            raise WeightsMissing(f"There is no network named {name}; there are {', '.join(MODULES)}.")
        with self._locks[name]:
            if name not in self._loaded:
                self._loaded[name] = import_module(MODULES[name]).load(self.weights, self.device)
            return self._loaded[name]

    def shared(self, build: Callable[[Networks], T]) -> T:
        """What `build` makes of these networks, made once: strategies that share it share its batches."""
        with self._sharing:
            if build not in self._shared:
                self._shared[build] = build(self)
            made: T = self._shared[build]
            return made

    def identity(self, name: str) -> Identity:
        """Which weights answer for this name; loads nothing."""
        return self.weights.identity(name)
