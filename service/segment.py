"""`python -m service segment`: one clip through a running service, its masks into a folder."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from service.client import Client, Clip, Job, Progress, lines_of
from service.client_errors import ClientError, InvalidRequest, MediaRefused, ServerUnreachable

DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def segment(arguments: Namespace) -> int:
    """Sends the clip, shows how far it is, writes what came of it. Returns the exit code."""
    missing = [str(path) for path in [*arguments.clip, arguments.audio] if path and not path.is_file()]
    if missing:
        return complain(f"There is no file {', '.join(missing)}.", BAD_INPUT)
    try:
        options = read_options(arguments.option)
        arguments.output.mkdir(parents=True, exist_ok=True)  # before the work that would have nowhere to go
        with Client(arguments.url, arguments.api_key) as client:
            job = client.submit(clip_of(arguments.clip), arguments.strategy, audio=arguments.audio, **options)
            return follow(job, arguments.output, arguments.overlay)
    except (InvalidRequest, MediaRefused, ValueError) as error:
        return complain(str(error), BAD_INPUT)
    except ServerUnreachable as error:
        return complain(f"{error} Start one with `make serve`, or name another with --url.", FAILED)
    except ClientError as error:
        return complain(str(error), FAILED)
    except OSError as error:
        return complain(f"{error.filename or arguments.output} cannot be written: {error.strerror}.", FAILED)


def follow(job: Job, folder: Path, overlay: bool) -> int:
    """Waits with a bar; Ctrl-C cancels the job, so that nobody computes what nobody wants."""
    try:
        with tqdm(unit="frame", file=sys.stderr, disable=None) as bar:
            job.wait(lambda progress: advance(bar, progress))
    except KeyboardInterrupt:
        job.cancel()
        return complain("Canceled.", INTERRUPTED)
    written = job.save_masks(folder)
    if overlay:
        written.append(job.overlay(folder / "overlay.mp4"))
    frames = job.progress.frames_total
    sys.stdout.write(f"{frames} frames; {len(written)} files in {folder}\n")
    return DONE


def advance(bar: tqdm[Any], progress: Progress) -> None:
    bar.total = progress.frames_total
    bar.set_description(progress.stage, refresh=False)
    bar.update(progress.frames_done - bar.n)


def clip_of(paths: Sequence[Path]) -> Clip:
    """One file is a clip; several are its frames in order."""
    return paths[0] if len(paths) == 1 else list(paths)


def read_options(pairs: Sequence[str]) -> dict[str, Any]:
    """`["fps=2", "thresholds.mask=0.6"]` as `{"fps": 2, "thresholds": {"mask": 0.6}}`; a name given again
    is a list, and so are the lines of `captions=@FILE`."""
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ValueError(f"Write an option as NAME=VALUE, not {pair!r}.")
        *outer, last = name.split(".")
        place = options
        for part in outer:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ValueError(f"The option {name} is given both as a value and as a group.")
        value = lines_of(Path(text[1:])) if text[:1] == "@" else value_of(text)
        place[last] = [*listed(place[last]), *listed(value)] if last in place else value
    return options


def listed(value: Any) -> list[Any]:  # noqa: ANN401
    return value if isinstance(value, list) else [value]


def value_of(text: str) -> Any:  # noqa: ANN401
    """JSON where it is JSON, else the text itself: `0.5`, `[\"dog\"]`, `dog`."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def complain(sentence: str, code: int) -> int:
    sys.stderr.write(f"{sentence}\n")
    return code
