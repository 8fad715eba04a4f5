"""The family in `models/tiny`: which recipe makes each network, and how a result gets there."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from models.checkpoints import read_safetensors, write_safetensors
from models.errors import DatasetInvalid
from models.training.recipes import Recipe, tiny_acfpn
from models.weights import TINY_FOLDER, metadata, record, replace_text

NETWORKS: Mapping[str, Callable[[], Recipe]] = MappingProxyType({"ac-fpn": tiny_acfpn})
LARGEST = 10_000_000  # bytes


def install(network: str, weights: Path, folder: Path = TINY_FOLDER) -> Path:
    """Copy a run's weights into the family, record their hash, and write the card beside them."""
    if weights.stat().st_size > LARGEST:
        raise DatasetInvalid(f"{weights} has {weights.stat().st_size} bytes; {LARGEST} may be shipped.")
    told = metadata(weights)
    target = folder / f"{network}.safetensors"
    write_safetensors(target, read_safetensors(weights), {key: told[key] for key in told if key != "format"})
    source = f"{json.loads(told['recipe'])['name']} on {told['data']}"
    record(
        folder,
        f"{network}-tiny",
        target,
        source=source,
        source_sha256=told["recipe_sha256"],
        licence="Apache-2.0",
    )
    replace_text(folder / f"{network}.md", card(network, weights.parent, told))
    return target


def card(network: str, run: Path, told: Mapping[str, str]) -> str:
    """How the weights came to be and what they score, from the run's own files."""
    test = json.loads((run / "test.json").read_text())
    minutes = test["seconds"] / 60
    return "\n".join(
        [
            f"# {network}, tiny",
            "",
            "For demonstration and tests; never for real video. It has seen nothing but SynthAVS.",
            "",
            f"- Rebuilt with `python -m models.training tiny {network} --out DIR`; the recipe's hash is",
            f"  `{told['recipe_sha256']}`.",
            f"- Trained on {told['data']}, best at step {told['step']}; {minutes:.0f} minutes in all.",
            f"- On {test['clips']} clips of the test split, {test['protocol']}: mIoU {test['mIoU']:.3f}, "
            f"F {test['F']:.3f}; mIoU+ {test['mIoU+']:.3f} of the frames in which something sounds.",
            "",
        ]
    )
