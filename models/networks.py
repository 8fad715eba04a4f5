"""The networks of a process: each is loaded once, when first asked for, and shared by all threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal, TypeVar

import torch

from models.batching import Batcher
from models.errors import WeightsMissing
from models.weights import Identity, Weights

T = TypeVar("T")

# A network -> the function `load(weights, device)` that builds it. By name, because some import transformers,
# and the original packages may not be there at all.
LOADERS: Mapping[str, str] = MappingProxyType(
    {
        "audioclip": "models.audioclip.load",
        "ac-fpn": "models.acfpn.load",
        "tpavi": "models.tpavi.load",
        "vggish": "models.vggish.load",
        "sam": "models.sam.load",
        "grounding-dino": "models.grounding_dino.load",
        "clap": "models.clap.load",
    }
)
OFFICIAL: Mapping[str, str] = MappingProxyType(
    {
        "sam": "models.official.load_sam",
        "grounding-dino": "models.official.load_grounding_dino",
        "clap": "models.official.load_clap",
    }
)
Supplier = Literal["transformers", "official"]


class Networks:
    """What strategies are built from: networks by name, and the batcher that all their calls go through.

    `supplier` says whose code runs SAM, Grounding DINO and CLAP; the others are ours in either case.
    """

    def __init__(
        self,
        device: torch.device | str,
        weights: Weights,
        batcher: Batcher | None = None,
        supplier: Supplier = "transformers",
    ) -> None:
        self.device, self.weights, self.batcher = torch.device(device), weights, batcher or Batcher()
        self._loaders = {**LOADERS, **(OFFICIAL if supplier == "official" else {})}
        self._loaded: dict[str, Any] = {}
        self._locks = {name: threading.Lock() for name in LOADERS}
        self._shared: dict[Callable[[Networks], Any], Any] = {}
        self._sharing = threading.RLock()  # what is shared may be built from what is shared

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401
        """The network, in evaluation mode on the device. WeightsMissing says what to install."""
        if name not in LOADERS:
            raise WeightsMissing(f"There is no network named {name}; there are {', '.join(LOADERS)}.")
        with self._locks[name]:
            if name not in self._loaded:
                self._loaded[name] = loader(self._loaders[name])(self.weights, self.device)
            return self._loaded[name]

    def shared(self, build: Callable[[Networks], T]) -> T:
        """What `build` makes of these networks, made once: strategies that share it share its batches."""
        with self._sharing:
            if build not in self._shared:
                self._shared[build] = build(self)
            made: T = self._shared[build]
            return made

    def supplier(self, name: str) -> str | None:
        """Whose code runs a network, where it is not the default's."""
        return "official" if self._loaders[name] in OFFICIAL.values() else None

    def identity(self, name: str) -> Identity:
        """Which weights answer for this name; loads nothing."""
        return self.weights.identity(name)


def loader(path: str) -> Callable[[Weights, torch.device], Any]:
    """The function behind `package.module.function`; WeightsMissing where the original packages are not."""
    module, _, function = path.rpartition(".")
    try:
        found: Callable[[Weights, torch.device], Any] = getattr(import_module(module), function)
    except (ImportError, RuntimeError) as error:  # torchvision beside a torch not its own: either
        if module != "models.official":
            raise
        raise WeightsMissing(
            f"The setting `supplier` is official, and this environment cannot run the original packages "
            f"({error}). Build theirs with `make .venv-official/ready` and start the worker from it: "
            "`.venv-official/bin/python -m service worker`."
        ) from error
    return found
