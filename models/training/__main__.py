"""`python -m models.training train RECIPE --data PATH --out DIR` trains; `evaluate STRATEGY` judges;
`tiny NAME` rebuilds a network of the shipped family; `recipes` lists what there is.

A sentence on stderr and exit code 2 for bad input, a full disk, or a training that diverged.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from models.errors import EarshotError, InvalidOption
from models.training import evaluate, tiny
from models.training.batches import SYNTH
from models.training.family.loop import Habits
from models.training.family.loop import train as train_task
from models.training.recipes import RECIPES, Recipe, tiny_acfpn
from models.training.starts import Files
from models.training.train import Setup, Training
from models.weights import DEFAULT_FOLDER, Weights

RUNS = Path("runs")
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
# What the loop of the family does not have: its networks start from nothing, by a plan, on one device.
RECIPES_ALONE = (
    *("epochs", "batch", "devices", "precision", "judged"),
    *("image_weights", "audio_weights", "init"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; 0 when all is well."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments[:1] == ["evaluate"]:  # its options live with it
        return evaluate.main(arguments[1:])
    options = parser().parse_args(arguments)
    if options.out is None:
        options.out = RUNS / options.of
    try:
        return int(options.run(options))
    except EarshotError as problem:
        print(problem, file=sys.stderr)
    except (OSError, SafetensorError) as problem:
        print(evaluate.told(problem, options.out), file=sys.stderr)
    except KeyboardInterrupt:
        print(f"Stopped. Go on with --resume --out {options.out}", file=sys.stderr)
        return 130
    return 2


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="python -m models.training", description=__doc__)
    commands = root.add_subparsers(required=True)
    train = commands.add_parser("train", help="train a recipe")
    train.add_argument("of", choices=list(RECIPES), metavar="RECIPE", help="see `recipes`")
    train.add_argument("--data", required=True, help=f"a folder with AVSBench, or `{SYNTH}`")
    places(train)
    train.set_defaults(run=run_train)
    shipped = commands.add_parser("tiny", help="rebuild a network of the family in models/tiny")
    shipped.add_argument("of", choices=list(tiny.NETWORKS), metavar="NETWORK", help=", ".join(tiny.NETWORKS))
    shipped.add_argument("--install", action="store_true", help="write it to models/tiny, with its card")
    places(shipped)
    shipped.set_defaults(run=run_tiny, data=SYNTH)
    listing = commands.add_parser("recipes", help="list the recipes")
    listing.set_defaults(run=run_list, out=Path())
    commands.add_parser("evaluate", help="judge strategies; see `evaluate --help`")
    return root


def places(command: argparse.ArgumentParser) -> None:
    """The options of every training."""
    command.add_argument(
        "--out", type=Path, help=f"the run's folder; {RUNS}/ with the run's name if left out"
    )
    command.add_argument("--resume", action="store_true", help="go on with the run that the folder holds")
    command.add_argument("--device", default="auto", help="auto, cpu, gpu, mps")
    command.add_argument(
        "--devices", type=evaluate.whole(1), default=1, help="how many; start them with torchrun"
    )
    command.add_argument("--precision", choices=list(PRECISIONS), default="fp32")
    command.add_argument("--threads", type=evaluate.whole(1), help="of the processor, per device")
    command.add_argument("--workers", type=evaluate.whole(0), default=0, help="processes that read clips")
    command.add_argument("--save-every", type=evaluate.whole(1), default=200, metavar="STEPS")
    command.add_argument("--judged", type=evaluate.whole(1), metavar="CLIPS", help="of a validation")
    command.add_argument("--image-weights", type=Path, help="what the image tower starts from")
    command.add_argument("--audio-weights", type=Path, help="what the audio tower starts from")
    command.add_argument("--init", type=Path, help="a network of the same architecture to start from")
    command.add_argument("--weights-dir", type=Path, default=DEFAULT_FOLDER, help="installed weights")
    for name in ("epochs", "steps", "batch"):
        command.add_argument(f"--{name}", type=evaluate.whole(1), help="in place of the recipe's")
    command.add_argument("--seed", type=evaluate.whole(0), help="in place of the recipe's")


def run_train(options: argparse.Namespace) -> int:
    """Trains, and says where the weights are."""
    print(Training(changed(RECIPES[options.of](), options), setup_of(options))())
    return 0


def run_tiny(options: argparse.Namespace) -> int:
    """Trains a shipped network from nothing, and installs it if asked to."""
    setup = setup_of(options)
    if options.of == tiny.ACFPN:
        path = Training(changed(tiny_acfpn(), options), setup)()
    else:
        refuse(options)
        task = tiny.task(options.of, options.steps, options.seed or 0)
        habits = Habits(setup.out, setup.device, setup.workers, setup.save_every, setup.resume)
        path = train_task(task, habits)
    print(tiny.install(options.of, path) if options.install else path)
    return 0


def refuse(options: argparse.Namespace) -> None:
    """Left out in silence, an option would be missed only after an hour."""
    usual = parser().parse_args(["tiny", options.of])
    if odd := [name for name in RECIPES_ALONE if getattr(options, name) != getattr(usual, name)]:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in odd)
        raise InvalidOption(f"{options.of} learns by a plan, which has no {names}.")


def run_list(_options: argparse.Namespace) -> int:
    """A recipe a line, with the beginning of its hash."""
    for name, recipe in RECIPES.items():
        made = recipe()
        print(f"{name:32s} {made.subset:5s} {made.epochs:4d} epochs  {made.digest[:12]}")
    return 0


def changed(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    """The recipe with what the command line changes of it."""
    changes: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("epochs", "batch", "seed")
        if getattr(options, name) is not None
    }
    return replace(recipe, **changes)


def setup_of(options: argparse.Namespace) -> Setup:
    """The rest of the command line."""
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device not in ("auto", "cpu", "gpu", "cuda", "mps"):
        raise InvalidOption(f"There is no device {options.device}; there are auto, cpu, gpu and mps.")
    if options.device in ("gpu", "cuda") and not torch.cuda.is_available():
        raise InvalidOption("This machine has no GPU that torch can use: choose --device cpu.")
    return Setup(
        data=options.data,
        out=options.out,
        device=options.device,
        devices=options.devices,
        precision=PRECISIONS[options.precision],
        steps=options.steps,
        workers=options.workers,
        save_every=options.save_every,
        resume=options.resume,
        judged=options.judged,
        files=Files(options.image_weights, options.audio_weights, options.init),
        weights=Weights(options.weights_dir),
    )


if __name__ == "__main__":
    sys.exit(main())
