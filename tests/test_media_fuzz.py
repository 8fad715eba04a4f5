"""Damaged clips give frames or one of our own exceptions, soon, in little memory, and kill no decoder.

Every case is decoded in a process of its own, as the service does, so that a crash inside libav is a failure
here with a seed to its name: `python -m tests.test_media_fuzz SEED` runs that case in this process.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from models.errors import EarshotError
from models.media import Media, Sampling, windows
from tests.clips import Picture, Sound, clip_bytes

ROOT = Path(__file__).resolve().parent.parent
SECONDS = 5
MEMORY = 1024**3  # bytes resident
ADDRESSES = 6 * 1024**3  # bytes of address space: numpy's and libav's libraries map a good part of it unused
FRAMES, REFUSED, CRASHED = 0, 3, 4  # how a case may end

SOUNDS = {"wav": "pcm_s16le", "flac": "flac", "mp3": "libmp3lame", "ogg": "libopus", "adts": "aac"}
CLIPS: dict[str, dict[str, object]] = {
    "mp4": {"video": Picture(b_frames=2)},
    "ismv": {},
    "mov": {
        "video": Picture(codec="libx265", pix_fmt="yuv420p10le"),
        "audio": Sound("pcm_s16le", 16_000, "mono"),
    },
    "matroska": {"video": Picture(b_frames=2), "audio": Sound("flac", 16_000, "mono")},
    "webm": {"video": Picture(codec="libvpx-vp9"), "audio": Sound("libopus", 48_000)},
    "avi": {"video": Picture(codec="mpeg4", b_frames=1), "audio": Sound("libmp3lame")},
    "mpegts": {"video": Picture(codec="mpeg2video"), "audio": Sound("mp2", 44_100)},
}


def originals() -> dict[str, bytes]:
    """Sound clips of each kind, by the name of their container."""
    made = {name: clip_bytes(1.2, (96, 64), container=name, **how) for name, how in CLIPS.items()}
    for name, codec in SOUNDS.items():
        made[name] = clip_bytes(1.2, container=name, video=False, audio=Sound(codec, 48_000))
    return made


def mutated(data: bytes, chance: random.Random, others: list[bytes]) -> bytes:
    """One to three kinds of damage, half of it in the header, where it does most."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        damage(changed, chance, others)
    return bytes(changed)


def damage(changed: bytearray, chance: random.Random, others: list[bytes]) -> None:
    """Damage of one kind, in place."""
    reach = min(len(changed), 1024) if chance.random() < 0.5 else len(changed)
    where = chance.randrange(max(1, reach))
    if chance.random() < 0.2:  # an MP4's header is at its end
        where = max(0, len(changed) - 1 - where)
    kind = chance.choice(["bits", "cut", "splice", "field", "zeros", "repeat"])
    if kind == "bits":
        for _ in range(chance.choice([1, 8, 64])):
            at = chance.randrange(max(1, reach))
            changed[at : at + 1] = (
                bytes([changed[at] ^ 1 << chance.randrange(8)]) if at < len(changed) else b""
            )
    elif kind == "cut":
        del changed[max(16, where) :]
    elif kind == "splice":
        donor = chance.choice(others)
        begin = chance.randrange(len(donor))
        changed[where:where] = donor[begin : begin + chance.randrange(1, 4096)]
    elif kind == "field":
        width = chance.choice([1, 2, 4, 8])
        value = chance.choice(
            [0, 1, 255, 2 ** (8 * width) - 1, 2 ** (8 * width - 1), chance.getrandbits(8 * width)]
        )
        changed[where : where + width] = (value % 256**width).to_bytes(
            width, chance.choice(["big", "little"])
        )
    elif kind == "zeros":
        length = chance.randrange(1, 2048)
        changed[where : where + length] = bytes(min(length, len(changed) - where))
    else:
        changed[where:where] = changed[where : where + chance.randrange(1, 2048)] * chance.randint(1, 20)


def case(seed: int, made: dict[str, bytes]) -> Media:
    """The clip of a seed."""
    chance = random.Random(seed)
    name = chance.choice(sorted(made))
    data = mutated(made[name], chance, list(made.values()))
    return Media(video=made["ismv"], audio=data) if name in SOUNDS else Media(video=data)


def decode(media: Media) -> int:
    """FRAMES, if every window is what a strategy may rely on, or REFUSED."""
    try:
        for window in windows(media, Sampling(fps=4), rates=(16_000,)):
            assert window.frames is not None and window.frames.shape[1:] == (*window.size, 3)
            assert np.isfinite(window.audio[16_000]).all() and np.abs(window.audio[16_000]).max() <= 1
    except EarshotError as error:
        assert str(error).endswith(".")
        return REFUSED
    return FRAMES


def isolated(media: Media) -> tuple[int, float, int]:
    """Decode in a child: its wait status, the processor's seconds and the bytes of memory that it took."""
    child = os.fork()
    if not child:
        status = CRASHED
        try:
            resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
            resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
            status = decode(media)
        except BaseException:  # noqa: BLE001  (the child's only way to tell)
            traceback.print_exc()
        finally:
            os._exit(status)
    _, status, usage = os.wait4(child, 0)
    return status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def run(seeds: range) -> Iterator[dict[str, object]]:
    """Every seed's end."""
    made = originals()
    for seed in seeds:
        status, seconds, memory = isolated(case(seed, made))
        code = os.waitstatus_to_exitcode(status)
        yield {"seed": seed, "code": code, "seconds": seconds, "memory": memory}


def ends(first: int, count: int) -> list[dict[str, float]]:
    """Run cases from one fresh process, which forks for each."""
    command = [sys.executable, "-m", "tests.test_media_fuzz", str(first), str(count)]
    fuzz = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=600)
    found = [json.loads(line) for line in fuzz.stdout.splitlines()]
    assert len(found) == count
    failed = [
        end
        for end in found
        if end["code"] not in {FRAMES, REFUSED} or end["seconds"] > SECONDS or end["memory"] > MEMORY
    ]
    assert not failed, f"{failed}\n{fuzz.stderr[-4000:]}"
    return found


def test_damaged_clips() -> None:
    found = ends(0, 200)
    # Were all refused, or none, the damage would be of the wrong kind.
    assert 40 < sum(end["code"] == FRAMES for end in found) < 160


@pytest.mark.slow
def test_many_damaged_clips() -> None:
    ends(1000, 2000)


if __name__ == "__main__":
    if len(sys.argv) == 2:
        sys.exit(decode(case(int(sys.argv[1]), originals())))
    for end in run(range(int(sys.argv[1]), int(sys.argv[1]) + int(sys.argv[2]))):
        sys.stdout.write(json.dumps(end) + "\n")
