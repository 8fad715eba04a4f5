"""`weights list | fetch | verify | import`: the folder of weights from the command line.

Run as `python -m service weights ...`, which passes its setting for the folder, or as
`python -m models.weights_cli ...`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import urlparse

from models.errors import EarshotError
from models.install import fetch, import_checkpoint, verify
from models.weights import DEFAULT_FOLDER, NETWORKS, Weights

OK, FAILED = 0, 1


def main(argv: Sequence[str] | None = None, folder: Path = DEFAULT_FOLDER) -> int:
    """Run one command; the exit status. `folder` is the default of `--folder`."""
    arguments = _parser(folder).parse_args(argv)
    command: Callable[[argparse.Namespace, Weights], int] = arguments.run
    try:
        return command(arguments, Weights(arguments.folder))
    except EarshotError as error:
        _say(str(error), sys.stderr)
    except BrokenPipeError:
        return FAILED  # the reader, `head` for one, has seen enough
    except OSError as error:
        _say(f"{error.filename or 'The weights folder'} cannot be used: {error.strerror}.", sys.stderr)
    except KeyboardInterrupt:
        _say("Stopped; run the same command again to go on.", sys.stderr)
    return FAILED


def _parser(folder: Path) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="weights", description="The networks' weights on this machine.")
    parser.add_argument("--folder", type=Path, default=folder, help="where they lie (default: %(default)s)")
    commands = parser.add_subparsers(required=True)

    listing = commands.add_parser("list", help="every weight: size, licence, source, whether installed")
    form = listing.add_mutually_exclusive_group()
    form.add_argument("--json", dest="show", action="store_const", const=_as_json, help="as JSON lines")
    form.add_argument("--table", dest="show", action="store_const", const=_as_row, help="as Markdown")
    listing.set_defaults(show=_as_text)
    listing.set_defaults(run=_list)

    fetching = commands.add_parser("fetch", help="download, check and import")
    fetching.add_argument("names", nargs="+", metavar="NAME", help="a weight, a network, or `all` networks")
    fetching.add_argument("--keep", action="store_true", help="keep the original file too")
    fetching.set_defaults(run=_fetch)

    verifying = commands.add_parser("verify", help="hash every installed file against its record")
    verifying.add_argument("names", nargs="*", metavar="NAME")
    verifying.set_defaults(run=_verify)

    importing = commands.add_parser("import", help="install a checkpoint that is already on this disk")
    importing.add_argument("name", metavar="NAME")
    importing.add_argument("file", metavar="FILE", type=Path)
    importing.add_argument("--trust", action="store_true", help="accept a file other than the published one")
    importing.set_defaults(run=_import)
    return parser


def _list(arguments: argparse.Namespace, weights: Weights) -> int:
    if arguments.show is _as_row:
        _say("| weight | MB | licence | source |\n|---|---|---|---|")
    known = [name for network in NETWORKS for name in weights.variants(network)]
    networks = [
        name for name in known if name in weights.registry or weights.lock(name)
    ]  # not all are shipped
    assets = [name for name, weight in weights.registry.items() if weight.importer is None]
    for name in [*networks, *assets]:
        _say(arguments.show(_entry(name, weights)))
    return OK


def _entry(name: str, weights: Weights) -> dict[str, Any]:
    """What is known of one weight."""
    weight, lock = weights.registry.get(name), weights.lock(name)
    return {
        "name": name,
        "installed": weights.present(name),
        "bytes": weight.bytes if weight else lock.get("bytes"),
        "licence": weight.licence if weight else lock.get("licence"),
        "source": weight.url if weight else "shipped in models/tiny",
        "sha256": lock.get("sha256"),
    }


def _as_json(entry: dict[str, Any]) -> str:
    return json.dumps(entry)


def _as_text(entry: dict[str, Any]) -> str:
    mark = "installed" if entry["installed"] else "-"
    source = entry["source"] or "no public source: train it, or import a checkpoint"
    first = f"{entry['name']:24} {mark:10} {_megabytes(entry):>10}  {entry['licence'] or '-'}"
    return f"{first}\n{'':24} {source}"


def _as_row(entry: dict[str, Any]) -> str:
    """For the README: what is so on every machine."""
    source = entry["source"]
    if source and source.startswith("https://"):
        source = f"[{urlparse(source).netloc}]({source})"
    size = _megabytes(entry).removesuffix(" MB")
    return f"| `{entry['name']}` | {size} | {entry['licence'] or '-'} | {source or 'yours'} |"


def _megabytes(entry: dict[str, Any]) -> str:
    return f"{entry['bytes'] / 1e6:.1f} MB" if entry["bytes"] else "-"


def _fetch(arguments: argparse.Namespace, weights: Weights) -> int:
    public = [network for network, (first, *_) in NETWORKS.items() if weights.registry[first].url]
    names = public if arguments.names == ["all"] else arguments.names
    for name in names:
        path = fetch(weights, name, keep=arguments.keep)
        _say(f"{name}: {path}")
    return OK


def _verify(arguments: argparse.Namespace, weights: Weights) -> int:
    status, found = OK, False
    for name, problem in verify(weights, tuple(arguments.names)):
        _say(f"{name}: {problem or 'ok'}")
        found, status = True, FAILED if problem else status
    if not found:
        _say(f"Nothing is installed in {weights.folder}; `python -m service weights fetch all` installs.")
    return status


def _import(arguments: argparse.Namespace, weights: Weights) -> int:
    path = import_checkpoint(weights, arguments.name, arguments.file, trust=arguments.trust)
    _say(f"{arguments.name}: {path}")
    return OK


def _say(line: str, stream: TextIO | None = None) -> None:
    print(line, file=stream or sys.stdout, flush=True)


if __name__ == "__main__":
    sys.exit(main())
