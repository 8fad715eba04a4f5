"""The family in `models/tiny`: what trains each network, and how a result gets there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

import torch

from models.checkpoints import State, read_safetensors, write_safetensors
from models.errors import DatasetInvalid
from models.files import digest, metadata, replace_text
from models.training.family.task import Task
from models.weights import TINY_FOLDER, record

ACFPN = "ac-fpn"  # learns by its recipe, `tiny_acfpn`, in the loop of the published runs
# The others -> the module whose `task(steps, seed)` says how it learns. By name: some import transformers.
TASKS: Mapping[str, str] = MappingProxyType(
    {
        "audioclip": "models.training.family.audioclip",
        "clap": "models.training.family.clap",
        "sam": "models.training.family.sam",
        "grounding-dino": "models.training.family.grounding_dino",
    }
)
NETWORKS = (*TASKS, ACFPN)
LARGEST = 10_000_000  # bytes


def task(network: str, steps: int | None = None, seed: int = 0) -> Task:
    """How a network of the family learns; `steps` in place of its plan's."""
    made: Task = import_module(TASKS[network]).task(steps, seed)
    return made


def install(network: str, weights: Path, folder: Path = TINY_FOLDER) -> Path:
    """Copy a run's weights into the family, record their hash, and write the card beside them."""
    if weights.stat().st_size > LARGEST:
        raise DatasetInvalid(f"{weights} has {weights.stat().st_size} bytes; {LARGEST} may be shipped.")
    told = metadata(weights)
    target = folder / f"{network}.safetensors"
    state = halved(read_safetensors(weights))
    # The card first: a run without its scores must not leave weights that the lock does not know.
    lines = recipe_lines(weights.parent, told) if network == ACFPN else plan_lines(weights.parent, told)
    write_safetensors(target, state, {key: told[key] for key in told if key != "format"})
    record(
        folder,
        f"{network}-tiny",
        target,
        source="trained in this repository on SynthAVS",
        source_sha256=digest(weights),
        licence="Apache-2.0",
    )
    replace_text(folder / f"{network}.md", card(network, lines))
    return target


def halved(state: State) -> State:
    """Matrices and filters in half precision, which halves the file. Vectors (norms, biases, windows) keep
    theirs."""
    return {
        name: tensor.half() if tensor.ndim > 1 and tensor.dtype == torch.float32 else tensor
        for name, tensor in state.items()
    }


def card(network: str, lines: list[str]) -> str:
    """How the weights came to be and what they score."""
    return "\n".join(
        [
            f"# {network}, tiny",
            "",
            "For demonstration and tests; never for real video. It has seen nothing but SynthAVS.",
            "",
            f"- Rebuilt with `python -m models.training tiny {network} --out DIR`.",
            *lines,
            "",
        ]
    )


def recipe_lines(run: Path, told: Mapping[str, str]) -> list[str]:
    """Of AC-FPN, from the files of its run."""
    test = json.loads((run / "test.json").read_text())
    return [
        f"- The recipe's hash is `{told['recipe_sha256']}`.",
        f"- Trained on {told['data']}, best at step {told['step']}; {test['seconds'] / 60:.0f} minutes.",
        f"- On {test['clips']} clips of the test split, {test['protocol']}: mIoU {test['mIoU']:.3f}, "
        f"F {test['F']:.3f}; mIoU+ {test['mIoU+']:.3f} of the frames in which something sounds.",
    ]


def plan_lines(run: Path, told: Mapping[str, str]) -> list[str]:
    """Of the others, from theirs."""
    plan, scores = json.loads(told["plan"]), json.loads((run / "scores.json").read_text())
    seconds = json.loads((run / "progress.json").read_text())["seconds"]
    return [
        f"- The plan's hash is `{told['plan_sha256']}`: {plan['steps']} steps, seed {plan['seed']}.",
        f"- Trained on SynthAVS, best at step {told['step']}; {seconds / 60:.0f} minutes in all.",
        "- On the validation split: "
        + ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
        + ".",
    ]
