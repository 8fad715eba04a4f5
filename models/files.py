"""Files as evidence: their hashes, what a file of weights says of itself, and writing that leaves no half.

Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from pathlib import Path

from models.errors import WeightsInvalid

HASH_BLOCK = 1 << 22  # bytes read at a time
HEADER_LIMIT = 100 << 20  # bytes; safetensors' own limit on its JSON header

_digests: dict[tuple[str, int, int], str] = {}
_digests_lock = threading.Lock()


def digest(path: Path) -> str:
    """The file's sha256, computed once a process as long as its size and time of change stay the same."""
    stat = path.stat()
    key = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    with _digests_lock:
        if key not in _digests:
            _digests[key] = hash_file(path, "sha256")
        return _digests[key]


def hash_file(path: Path, algorithm: str) -> str:
    """Hex digest of a whole file, read in blocks."""
    hasher = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(HASH_BLOCK):
            hasher.update(block)
    return hasher.hexdigest()


def metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; WeightsInvalid when it is cut short or not such a file."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(HEADER_LIMIT, size - 8):
                raise ValueError("the header does not fit")
            header = json.loads(file.read(length))
        meta = header.pop("__metadata__", {})
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise WeightsInvalid(f"{path.name} is not a safetensors file: {error}.") from error
    if 8 + length + end != size:
        raise WeightsInvalid(f"{path.name} is cut short: {size} bytes of {8 + length + end}.")
    return dict(meta)


def replace_text(path: Path, text: str) -> None:
    """Write a small file so that a reader sees the old one or the new one, never half."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("x") as file:  # readable for whom the umask says, unlike those of `tempfile`
            file.write(text)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
