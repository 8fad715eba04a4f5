"""`python -m models.datasets synth OUT --layout s4` writes a data set; `check PATH` validates one."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from models.datasets.audit import audit
from models.datasets.avsbench import LAYOUTS, Row
from models.datasets.layouts import Order, write_layout
from models.datasets.scenes import SynthConfig
from models.datasets.sheet import contact_sheet, save_sheet
from models.datasets.synthavs import PROBES, open_synth
from models.errors import EarshotError, InvalidOption

SHOWN = 20  # problems printed in full


@dataclass(frozen=True)
class Bar:
    """A progress bar around an iterable of unknown length."""

    total: int | None
    label: str

    def __call__(self, rows: Iterable[Row]) -> Iterable[Row]:
        return tqdm(rows, total=self.total, desc=self.label, unit="clip", disable=None)  # only in terminals


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; 0 when all is well, 2 with a sentence on stderr when not."""
    options = parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except EarshotError as problem:
        print(problem, file=sys.stderr)
    except OSError as problem:
        name = problem.filename or getattr(options, "out", None) or getattr(options, "sheet", None)
        why = problem.strerror or problem
        print(f"{name or options.path} cannot be read or written: {why}.", file=sys.stderr)
    return 2


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="python -m models.datasets", description=__doc__)
    commands = root.add_subparsers(required=True)
    synth = commands.add_parser("synth", help="write SynthAVS as an AVSBench folder, or show it as a picture")
    synth.add_argument(
        "out", type=Path, nargs="?", help="the folder to make; without it only --sheet is written"
    )
    synth.add_argument("--layout", choices=list(LAYOUTS), default="s4")
    synth.add_argument("--clips", type=int, default=100, help="in all three splits together")
    synth.add_argument("--size", type=int, default=224, help="pixels of a frame's side")
    synth.add_argument("--seed", type=int, default=0)
    synth.add_argument("--no-videos", dest="videos", action="store_false", help="leave the raw mp4 files out")
    synth.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that draw")
    synth.add_argument("--sheet", type=Path, help="a contact sheet to write: a PNG of a few clips")
    synth.add_argument("--probe", choices=list(PROBES), help="the probe that the sheet shows")
    synth.set_defaults(run=run_synth)
    check = commands.add_parser("check", help="say what is missing, corrupt or odd in an AVSBench folder")
    check.add_argument("path", type=Path)
    check.set_defaults(run=run_check)
    return root


def run_synth(options: argparse.Namespace) -> int:
    """Writes the folder, the sheet, or both."""
    if options.out is None and options.sheet is None:
        raise InvalidOption("There is nothing to write: name a folder, or a picture with --sheet.")
    if options.size < 16 or options.size % 2:
        raise InvalidOption(f"A size of {options.size} is not an even number of at least 16 pixels.")
    if not 0 <= options.seed < 1 << 32:
        raise InvalidOption(f"The seed {options.seed} is not a number from 0 to 4294967295.")
    if options.out is not None:
        order = Order(options.layout, options.clips, options.size, options.seed, options.videos)
        write_layout(options.out, order, max(1, options.workers), Bar(options.clips, options.layout))
        print(f"{options.clips} clips in the layout of {options.layout}: {options.out}")
    if options.sheet is not None:
        clips = open_synth(
            "test", probe=options.probe, seed=options.seed, config=SynthConfig(size=options.size)
        )
        step = clip_step(options.probe)
        title = "SynthAVS" + (f": {options.probe}" if options.probe else "")
        subtitle = PROBES[options.probe].question if options.probe else "Who is making the sound?"
        save_sheet(options.sheet, contact_sheet([clips[step * i] for i in range(8)], title, subtitle))
        print(f"A contact sheet: {options.sheet}")
    return 0


def clip_step(probe: str | None) -> int:
    """How far apart the clips of a sheet lie. Neighbours share a picture, which a probe need not show."""
    return 1 if probe is None else SynthConfig.tracks


def run_check(options: argparse.Namespace) -> int:
    """Prints the report; a folder with problems ends with 2."""
    report = audit(options.path, Bar(None, "check"))
    for line in report.summary:
        print(line)
    for heading, lines in (("Odd", report.oddities), ("Wrong", report.problems)):
        for line in lines[:SHOWN]:
            print(f"{heading}: {line}")
        if len(lines) > SHOWN:
            print(f"{heading}: and {len(lines) - SHOWN} more like these.")
    if report.problems:
        print(f"{len(report.problems)} files or tables are missing or broken.", file=sys.stderr)
        return 2
    print("All files are there and readable.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
