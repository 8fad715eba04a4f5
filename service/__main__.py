"""`python -m service COMMAND`: the processes of the service, and the tools around it.

Each command imports what it needs and nothing else: the API stays free of torch, `segment` of the server.
"""

from __future__ import annotations

import argparse
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from service.settings import Settings


def serve(arguments: Namespace) -> int:
    """Redis, API and workers on this machine, until Ctrl-C."""
    from service.embedded import CannotServe, Embedded

    given = settings(arguments.host, arguments.port)
    if given.model_fields_set & {"storage_url", "scratch_dir"}:  # else both are in a folder of ours
        given = stored(given)
    try:
        Embedded(given, arguments.workers).run()
    except CannotServe as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def api(arguments: Namespace) -> int:
    """The HTTP process."""
    from service.app import serve_http

    return serve_http(stored(settings(arguments.host, arguments.port)))


def worker(_arguments: Namespace) -> int:
    """The process that holds the networks."""
    from service.redis_server import RedisUnfit
    from service.worker import work

    try:
        return work(stored(settings()))
    except RedisUnfit as error:
        print(error, file=sys.stderr)
        return 2


def segment(arguments: Namespace) -> int:
    """One clip through a running service."""
    from service.segment import segment as run

    return run(arguments)


def weights(words: Sequence[str]) -> int:
    """What is installed, and how to install more; the command has a parser of its own."""
    from models.weights_cli import main as run

    return run(words, settings().weights_dir)


def print_settings(_arguments: Namespace) -> int:
    """For the README, and for people who look for one."""
    from service.settings_table import table

    print(table())
    return 0


def settings(host: str | None = None, port: int | None = None) -> Settings:
    """What the environment says; the command line goes over it."""
    from pydantic import ValidationError

    from service.options import message
    from service.settings import Settings
    from service.settings_table import called

    given = {"host": host, "port": port}
    try:
        return Settings.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        wrong = [
            f"{called(str(one['loc'][0]))}: {message(one['type'], one['msg'], ())}" for one in error.errors()
        ]
        print("A setting has a wrong value.", *wrong, file=sys.stderr)
        raise SystemExit(2) from error


def stored(given: Settings) -> Settings:
    """The same, if what is stored can be stored where they say; else a sentence, and the end."""
    from service.storage import Storage, StorageUnfit, refuse_unfit

    try:
        refuse_unfit(given.storage_url)
        Storage(given.storage_url, given.scratch_dir)
    except StorageUnfit as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    return given


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m service", description=__doc__.splitlines()[0])
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, summary: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=summary, description=summary)

    one = command("serve", "Start Redis, the API and workers on this machine; Ctrl-C stops them all.")
    add_address(one)
    one.add_argument("--workers", type=worker_count, default=1, metavar="N", help="worker processes (1)")
    one.set_defaults(run=serve)

    one = command("api", "Start the HTTP process; settings come from the environment: see `settings`.")
    add_address(one)
    one.set_defaults(run=api)

    one = command("worker", "Start a worker process; settings come from the environment.")
    one.set_defaults(run=worker)

    one = command("segment", "Send a clip to a running service and write its masks into a folder.")
    add_segment(one)
    one.set_defaults(run=segment)

    one = command("settings", "Print every setting, its default and what it is, as a table.")
    one.set_defaults(run=print_settings)

    command("weights", "List, fetch, verify and import weights.")
    return root


def worker_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no number of workers; give 1 or more")
    return int(text)


def add_address(one: argparse.ArgumentParser) -> None:
    one.add_argument("--host", help="address to listen at (127.0.0.1)")
    one.add_argument("--port", type=int, help="port to listen at (8000)")


def add_segment(one: argparse.ArgumentParser) -> None:
    one.add_argument("clip", nargs="+", type=Path, help="a video with sound, or images in order")
    one.add_argument("--audio", type=Path, help="the sound, where the clip has none of its own")
    one.add_argument("--strategy", default="auto", help="which method (auto: the best that is ready)")
    one.add_argument("-o", "--output", type=Path, default=Path("out"), help="folder of the masks (out)")
    one.add_argument("--overlay", action="store_true", help="write overlay.mp4 too")
    one.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="fps=2; given again, a list; captions=@FILE, a line each",
    )
    one.add_argument("--url", default="http://127.0.0.1:8000", help="the service (http://127.0.0.1:8000)")
    one.add_argument("--api-key", help="where the service asks for one")


def main(words: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if words is None else words
    if words[:1] == ["weights"]:
        return weights(words[1:])
    arguments = parser().parse_args(words)
    code: int = arguments.run(arguments)
    return code


if __name__ == "__main__":
    sys.exit(main())
