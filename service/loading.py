"""What a worker loads once: its strategies, each ready or with the reason why not, and their networks."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import structlog
from pydantic import TypeAdapter

from models.batching import Batcher
from models.errors import EarshotError, WeightsMissing
from models.media import Window
from models.strategies import Segmenter, Strategy
from models.weights import Weights
from service.errors import Refusal
from service.settings import Settings

WARM_PIXELS = 64  # a side of the black frame that warms a strategy
UNUSABLE = (
    EarshotError,
    ImportError,
    OSError,
    RuntimeError,
    ValueError,
)  # each names its cause
FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^\s/'\"]+/)+")  # of a path in a sentence, not of an address
RESTART = "Then restart the worker, which looks for weights when it starts."
LOG = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Ready:
    """A strategy that can run: its entry in the table, what reads its options, its code, its weights."""

    strategy: Strategy
    options: TypeAdapter[Any]
    segmenter: Segmenter
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Loaded:
    """Strategies by name, and for the others a sentence. `networks` is None until a strategy needs one."""

    def __init__(self, settings: Settings, observe: Callable[[str, int], None]) -> None:
        self.settings = settings
        self.weights = Weights(settings.weights_dir)
        self.table: Mapping[str, Strategy] = importlib.import_module(settings.registry).STRATEGIES
        self.device = "cpu"
        self.networks: Any = None
        self.batcher = Batcher(
            settings.batch_frames, settings.batch_wait_ms / 1000, release=self._release, observe=observe
        )
        self.pending: tuple[str, ...] = ()  # strategies still to load, the one in hand first
        self.ready: dict[str, Ready] = {}
        self.refusals: dict[str, Refusal] = {}
        self.models: dict[str, dict[str, Any]] = {}

    def load(self, tell: Callable[[], None] = lambda: None) -> None:
        """Load and warm what the settings name; `tell` is called after each. First those that lack weights:
        who asks for one is refused at once, not when all is loaded."""
        names = self.table if "all" in self.settings.strategies else self.settings.strategies
        self.pending = tuple(sorted(names, key=lambda name: not self._missing(name)))
        while self.pending:
            name, began = self.pending[0], time.monotonic()
            try:
                self.ready[name] = self._strategy(name)
            except UNUSABLE as error:
                self.refusals[name] = refusal_of(error)
                LOG.warning("strategy not ready", strategy=name, reason=str(error))
            else:
                LOG.info("strategy ready", strategy=name, seconds=round(time.monotonic() - began, 3))
            self.pending = self.pending[1:]
            tell()

    def statement(self) -> dict[str, Any]:
        """What /v1/strategies and /v1/models say of this worker.

        From copies: the heartbeat asks while `load` fills the tables, and would end if one grew under it.
        """
        ready = {name: {"ready": True, "reason": None} for name in self.ready.copy()}
        refused = {
            name: {"ready": False, "reason": why.detail, "code": why.code}
            for name, why in self.refusals.copy().items()
        }
        return {
            "device": self.device,
            "strategies": ready | refused,
            "loading": self.pending,
            "models": self.models.copy(),
        }

    def _strategy(self, name: str) -> Ready:
        if name not in self.table:
            known = ", ".join(self.table)
            raise ValueError(f"There is no strategy {name}; the setting `strategies` may name {known}.")
        strategy = self.table[name]
        if missing := self._missing(name):
            raise WeightsMissing(f"{self.weights.missing(missing)} {RESTART}")
        for network in strategy.networks:
            self._network(network)
        segmenter: Segmenter = importlib.import_module(strategy.module).build(self.networks)
        if strategy.networks:
            warm(strategy, segmenter)
        models = {network: self._identity(network) for network in strategy.networks}
        return Ready(strategy, TypeAdapter(strategy.options), segmenter, models)

    def _missing(self, name: str) -> list[str]:
        """The networks of a strategy that have no weights here; before torch is imported for nothing."""
        networks = self.table[name].networks if name in self.table else ()
        return [network for network in networks if not self.weights.installed(network)]

    def _network(self, name: str) -> None:
        if self.networks is None:
            self.networks = self._build_networks()
        if name in self.models:
            return
        began = time.monotonic()
        network = self.networks[name]
        self.models[name] = {
            **self._identity(name),
            "device": self.device,
            "dtype": str(getattr(network, "dtype", "float32")).removeprefix("torch."),
            "load_seconds": round(time.monotonic() - began, 3),
        }

    def _build_networks(self) -> Any:  # noqa: ANN401 (models.networks imports torch, so this module must not)
        torch = importlib.import_module("torch")
        if self.settings.torch_threads:
            torch.set_num_threads(self.settings.torch_threads)
        automatic = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = automatic if self.settings.device == "auto" else self.settings.device
        make = importlib.import_module("models.networks").Networks
        return make(self.device, self.weights, self.batcher, self.settings.supplier)

    def settle(self) -> None:
        """Wait until the device has done what it was given: a GPU works behind the program's back."""
        if self.device.startswith("cuda"):
            importlib.import_module("torch").cuda.synchronize(self.device)

    def device_bytes(self) -> int | None:
        """What this process holds of the device's memory, torch's pool included; None for the CPU."""
        if not self.device.startswith("cuda"):
            return None
        return int(importlib.import_module("torch").cuda.memory_reserved(self.device))

    def lookups(self) -> dict[str, tuple[int, int]]:
        """Network -> hits and misses of its cache of embeddings, where it has one."""
        held = {name: self.networks[name] for name in self.models.copy()}
        counts = {name: one.cache_counts for name, one in held.items() if hasattr(one, "cache_counts")}
        return {name: (count.hits, count.misses) for name, count in counts.items()}

    def _release(self) -> None:
        """Give cached memory back to the device before a smaller batch is tried."""
        if self.device.startswith("cuda"):
            importlib.import_module("torch").cuda.empty_cache()

    def _identity(self, network: str) -> dict[str, Any]:
        identity = asdict(self.weights.identity(network))
        supplier = self.networks.supplier(network)
        return identity | ({"supplier": supplier} if supplier else {})


def refusal_of(error: Exception) -> Refusal:
    """Why a strategy cannot run, as it may leave the process: of a path only the file's name."""
    missing = isinstance(error, WeightsMissing | ImportError)
    return Refusal("weights_missing" if missing else "weights_invalid", FOLDERS.sub("", str(error)))


def warm(strategy: Strategy, segmenter: Segmenter) -> None:
    """Run once on a black frame and a tone, so that the first clip does not pay for kernels and caches.

    Not on silence or noise: most strategies have nothing to compute there.
    """
    window = Window(
        index=0,
        size=(WARM_PIXELS, WARM_PIXELS),
        timestamps=(0.0,),
        indices=(0,),
        audio_windows=((0.0, 1.0),),
        frames=np.zeros((1, WARM_PIXELS, WARM_PIXELS, 3), np.uint8) if strategy.needs_pixels else None,
        audio={rate: a_tone(rate) for rate in strategy.audio_rates},
        has_audio=True,
    )
    for _ in segmenter(window, strategy.warm_up or strategy.presets["best"]):
        pass


def a_tone(rate: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """A second of 440 Hz, [1, rate] in [-0.5, 0.5]."""
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)).astype(np.float32)[None]
