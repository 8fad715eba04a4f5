"""What the loop knows of a network of the tiny family: its plan, its batches, its loss and its scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn


@dataclass(frozen=True)
class Plan:
    """How long and how fast a network learns. AdamW; the rate rises from 0 and falls to 0 along a cosine."""

    steps: int
    batch: int
    """Frames, clips or pairs of a step: the task's own unit."""
    best: str
    """The validation score that says which weights are kept."""
    rate: float = 1e-3
    decay: float = 1e-2
    warmup: int = 100
    """Steps in which the rate rises."""
    clip: float = 1.0
    """Largest norm of the gradients."""
    validate_every: int = 500
    seed: int = 0


class Task(Protocol):
    """A network as it learns. Everything random follows from the plan's seed and the step."""

    name: str
    """Of the weights: `sam-tiny`."""
    plan: Plan

    @property
    def network(self) -> nn.Module:
        """What is shipped, on the device on which `learner` is."""
        ...

    @property
    def learner(self) -> nn.Module:
        """What is trained: the network, and layers that are thrown away at the end."""
        ...

    def batch(self, step: int) -> Any:  # noqa: ANN401  (the task's own)
        """What is shown at a step: tensors, or tuples, lists and dicts of them. May run elsewhere."""
        ...

    def losses(self, batch: Any) -> dict[str, Tensor]:  # noqa: ANN401  (the task's own)
        """Scalars by name, weighted already: their sum is minimised. The learner is in training mode."""
        ...

    def scores(self) -> dict[str, float]:
        """On clips of the validation split; the learner is in evaluation mode, without gradients."""
        ...
