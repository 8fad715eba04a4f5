"""`python -m models.training.evaluate STRATEGY --data PATH|synth:test --protocol robust`: what is it worth?

Any strategy of the registry whose weights are installed, or `all`, through the very code that the service
runs. Prints a table as text, Markdown or JSON; `--out DIR` keeps all three, and the masks if asked for.
"""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib import import_module
from pathlib import Path

import torch
from tqdm import tqdm

from models.datasets.avsbench import LAYOUTS
from models.datasets.layouts import fresh_folder
from models.errors import EarshotError, InvalidOption
from models.files import replace_text
from models.networks import Networks
from models.training import gate
from models.training.arms import TrainedNetworks, settings, strategies_of
from models.training.batches import SYNTH
from models.training.benches import Bench, bench_of, probes_of
from models.training.judging import Arm, judge
from models.training.remembering import Remembering
from models.training.runs import network_in
from models.training.scores import NOTES, PROTOCOLS, Protocol, Score, formulas, scored
from models.training.tables import Line, Report
from models.weights import DEFAULT_FOLDER, TINY_FOLDER, Weights

NAMES = {"text": "report.txt", "markdown": "report.md", "json": "report.json"}


@dataclass(frozen=True)
class Asked:
    """What is asked of every arm; `seed` is of the intervals."""

    protocol: Protocol
    probes: tuple[str, ...] = ()
    seed: int = 0
    quiet: bool = True


def evaluate(
    arms: Sequence[Arm], bench: Bench, asked: Asked, memory: Remembering, masks: Path | None = None
) -> list[tuple[dict[str, Score], float]]:
    """Scores and seconds per clip of every arm, whose networks remember in `memory`. `masks` is a folder to
    fill."""
    sets = {None: bench.clips} | {probe: bench.probe(probe) for probe in asked.probes}
    bar = partial(tqdm, desc=f"{bench.data} {bench.split}", unit="clip", disable=asked.quiet or None)
    counted = judge(arms, sets, memory, bench.family, masks=masks, watched=bar)
    columns = formulas(asked.protocol, asked.probes, follows=bench.synth is not None)
    results = []
    for number in range(len(arms)):
        tables = {probe: of_arms[number] for probe, of_arms in counted.items()}
        scores = scored(tables, columns, family=bench.family, seed=asked.seed)
        results.append((scores, tables[None].seconds / len(bench.clips)))
    return results


def main(arguments: Sequence[str] | None = None) -> int:
    """Judges; 0 when all is well, 1 when the gate or an earlier report objects, 2 with a sentence for bad
    input."""
    options = parser().parse_args(arguments)
    try:
        with place(options.out):
            report = run(options)
        forms = {"text": report.text(), "markdown": report.markdown(), "json": report.json()}
        print(forms[options.format], end="")  # first, so that a full disk costs no result
        if options.out:
            for form, name in NAMES.items():
                replace_text(options.out / name, forms[form])
    except EarshotError as problem:
        print(problem, file=sys.stderr)
        return 2
    except OSError as problem:
        print(told(problem, options.out), file=sys.stderr)
        return 2
    return 1 if report.objections else 0


@contextmanager
def place(folder: Path | None) -> Iterator[None]:
    """The folder for what comes out, made before the work begins; gone again if nothing came."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        if folder is not None and not any(folder.iterdir()):
            folder.rmdir()
        raise


def told(problem: Exception, folder: Path | None) -> str:
    """A sentence about a file that could not be read or written."""
    name = getattr(problem, "filename", None) or folder or "A file"
    if getattr(problem, "errno", None) == errno.ENOSPC or "No space left" in str(problem):
        return f"{name} cannot be written: the disk is full."
    return f"{name} cannot be read or written: {getattr(problem, 'strerror', None) or problem}."


def check(options: argparse.Namespace) -> None:
    """What the parser cannot know to be wrong; the threads are set on the way."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InvalidOption("This machine has no GPU that torch can use: choose --device cpu.")
    if options.masks and options.out is None:
        raise InvalidOption("To save masks, name a folder with --out.")
    if options.masks and (options.out / "masks").exists():
        raise InvalidOption(f"{options.out / 'masks'} is there already: remove it or name another --out.")
    if options.threads:
        torch.set_num_threads(options.threads)


def run(options: argparse.Namespace) -> Report:
    """The table that the command line asks for."""
    check(options)
    bench, probes = bench_of(options), probes_of(options)
    if options.gate and (bench.synth is None or options.protocol != "robust"):
        raise InvalidOption("The gate needs SynthAVS and the protocol robust.")
    earlier = gate.read(options.against) if options.against else None
    memory, weights = Remembering(), Weights(options.weights_dir, tiny=options.tiny_dir)
    trained = network_in(options.weights) if options.weights else None
    networks = (
        TrainedNetworks(options.device, weights, memory, options.weights)
        if options.weights
        else Networks(options.device, weights, memory)
    )
    chosen, left_out = strategies_of(options.strategy, weights, trained)
    arms, labels = [], []
    for name, strategy in chosen.items():
        segmenter = import_module(strategy.module).build(networks)
        for label, setting in settings(name, strategy, options):
            arms.append(Arm(f"{name} {label}".strip(), segmenter, setting, strategy.audio_rates))
            labels.append((name, label))
    asked = Asked(options.protocol, probes, options.seed, quiet=False)
    with fresh_folder(options.out / "masks") if options.masks else nullcontext() as masks:
        results = evaluate(arms, bench, asked, memory, masks)
    lines = [
        Line(
            strategy=name,
            preset=options.preset,
            options=asdict(arm.options),
            weights={n: vars(networks.identity(n)) for n in chosen[name].networks},
            scores=scores,
            seconds_per_clip=seconds,
            label=label,
        )
        for (name, label), arm, (scores, seconds) in zip(labels, arms, results, strict=True)
    ]
    report = Report(
        protocol=options.protocol,
        note=NOTES[options.protocol],
        data=bench.data,
        split=bench.split,
        clips=len(bench.clips),
        seed=options.seed,
        probes=probes,
        lines=lines,
        ceilings=bench.ceilings() if options.protocol == "robust" else {},
        left_out=left_out,
    )
    if options.gate:
        report = replace(report, gate=gate.verdicts(report), order=gate.order(lines))
    return report if earlier is None else replace(report, against=gate.compared(report, earlier))


def whole(least: int) -> Callable[[str], int]:
    """A type of the command line: a whole number from `least` on."""

    def number(text: str) -> int:
        if not least <= (value := int(text)) < 1 << 32:
            raise argparse.ArgumentTypeError(f"{value} is not a number from {least} to {(1 << 32) - 1}")
        return value

    return number


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="python -m models.training.evaluate", description=__doc__)
    root.add_argument("strategy", help="a strategy of the registry, or `all` that are installed")
    root.add_argument("--data", required=True, help=f"a folder with AVSBench, `{SYNTH}` or `{SYNTH}:SPLIT`")
    root.add_argument("--subset", choices=list(LAYOUTS), help="which part of the folder")
    root.add_argument("--split", default="test")
    root.add_argument("--protocol", choices=PROTOCOLS, default="per-image")
    root.add_argument("--probe", metavar="NAMES", help="e.g. silence,noise,composite")
    root.add_argument("--clips", type=whole(1), help="only so many; of SynthAVS whole families of three")
    root.add_argument("--seed", type=whole(0), default=0, help="of SynthAVS, of probes and of the intervals")
    root.add_argument("--size", type=whole(16), default=96, help="pixels of a side of SynthAVS")
    root.add_argument("--preset", choices=("best", "paper"), default="best")
    root.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change an option; STRATEGY:KEY=VALUE that of one alone",
    )
    root.add_argument(
        "--sweep",
        action="append",
        default=[],
        metavar="KEY=A,B",
        help="a line a value; STRATEGY:KEY=A,B likewise",
    )
    root.add_argument("--gate", action="store_true", help="exit with 1 unless all pass; needs robust")
    root.add_argument("--against", type=Path, metavar="JSON", help="a report of another seed to agree with")
    root.add_argument("--weights", type=Path, help="a network from a training run's file")
    root.add_argument("--weights-dir", type=Path, default=DEFAULT_FOLDER, help="installed weights")
    root.add_argument(
        "--tiny-dir", type=Path, default=TINY_FOLDER, help="the family where none are installed"
    )
    root.add_argument(
        "--device", choices=("cpu", "cuda", "mps"), default="cuda" if torch.cuda.is_available() else "cpu"
    )
    root.add_argument("--threads", type=whole(1), help="of the processor")
    root.add_argument("--format", choices=list(NAMES), default="text")
    root.add_argument("--out", type=Path, help="a folder for report.txt, report.md and report.json")
    root.add_argument("--masks", action="store_true", help="save the masks under --out")
    return root


if __name__ == "__main__":
    sys.exit(main())
