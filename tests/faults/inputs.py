"""Promises 13 to 15: what clients send. Every answer is a right one or a refusal that says why."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import tempfile
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.clips import Picture, Sound, clip_bytes
from tests.cluster import SAMPLE, Cluster, family
from tests.faults.lab import shared_lab
from tests.faults.memory import Peak
from tests.faults.orders import journal
from tests.faults.promise import Measured, Promise, Scale

REFUSED = {413, 415, 422}


def out_of_memory(scale: Scale) -> Measured:
    """A device of four frames: five pass in two halves, sixteen do not; the same worker goes on."""
    with shared_lab() as cluster:
        worker = cluster.workers[0]
        codes, batches = [], []
        for fps in ("1", "3.2"):
            with journal() as path:
                got = answer(cluster, SAMPLE.read_bytes(), "oom", journal=str(path), fps=fps)
                codes += [got.status_code, answer(cluster, SAMPLE.read_bytes(), "free").status_code]
                calls = [line.split() for line in path.read_text().splitlines() if "frames" in line]
                batches.append([int(frames) for frames, _ in calls])
        same = worker is cluster.workers[0] and worker.poll() is None
    ok = codes == [200, 200, 507, 200] and batches == [[5, 2, 3], [16, 8]] and same
    text = (
        f"answers {codes} (200, 200, 507, 200), batches {batches} (5, 2, 3; 16, 8), the worker goes on {same}"
    )
    return Measured(ok, text)


def answer(
    cluster: Cluster, clip: bytes, strategy: str = "pixels", name: str = "clip.mp4", **fields: str
) -> httpx.Response:
    return cluster.http.post(
        f"/v1/segment/{strategy}",
        files={"media": (name, clip)},
        data=fields,
        headers={"Prefer": "wait=60"},
    )


def odd_clips() -> dict[str, tuple[Callable[[], bytes], set[int]]]:
    """Each clip of the list, and the statuses that are right for it."""
    small = {"size": (160, 120), "seconds": 3.0}
    good = clip_bytes(**small)
    served = {200}
    times = [0.0, 0.04, 0.3, 0.31, 1.2, 1.25, 2.0, 2.9]
    return {
        "truncated": (lambda: good[: len(good) // 2], {200, *REFUSED}),
        "cut in the header": (lambda: good[:30], REFUSED),
        "empty": (lambda: b"", {400, *REFUSED}),
        "random": (lambda: random.Random(0).randbytes(100_000), REFUSED),
        "zeros": (lambda: bytes(100_000), REFUSED),
        "no video": (lambda: clip_bytes(video=False, **small), REFUSED),
        "no audio": (lambda: clip_bytes(audio=False, **small), served),
        "one frame": (lambda: clip_bytes(seconds=0.04, size=(160, 120), audio=Sound(seconds=1.0)), served),
        "variable fps": (lambda: clip_bytes(video=Picture(times=times), **small), served),
        "rotated": (lambda: clip_bytes(video=Picture(rotation=90), **small), served),
        "odd size": (
            lambda: clip_bytes(seconds=3.0, size=(161, 121), video=Picture(pix_fmt="yuv444p")),
            served,
        ),
        "10-bit": (lambda: clip_bytes(video=Picture(pix_fmt="yuv420p10le"), **small), served),
        "B-frames": (lambda: clip_bytes(video=Picture(b_frames=3), **small), served),
        "8 kHz mono": (lambda: clip_bytes(audio=Sound(rate=8000, layout="mono"), **small), served),
        "5.1": (lambda: clip_bytes(audio=Sound(layout="5.1"), **small), served),
        "audio longer": (lambda: clip_bytes(audio=Sound(seconds=8.0), **small), served),
        "audio shorter": (lambda: clip_bytes(audio=Sound(seconds=0.5), **small), served),
        "silent": (lambda: clip_bytes(audio=Sound(gain=0.0), **small), served),
        "non-monotonic": (lambda: disordered(**small), served),
        "matroska": (lambda: clip_bytes(container="matroska", **small), served),
        "webm": (
            lambda: clip_bytes(
                container="webm",
                video=Picture(codec="libvpx"),
                audio=Sound(codec="libopus", rate=48_000),
                **small,
            ),
            served,
        ),
    }


def disordered(seconds: float, size: tuple[int, int]) -> bytes:
    """The offsets between decoding and showing, in the wrong order: frames go back and forth in time."""
    clip = bytearray(clip_bytes(seconds=seconds, size=size, video=Picture(b_frames=3)))
    table = clip.index(b"ctts") + 12
    count = struct.unpack_from(">I", clip, table - 4)[0]
    entries = [clip[table + 8 * k : table + 8 * k + 8] for k in range(count)]
    clip[table : table + 8 * count] = b"".join(reversed(entries))
    return bytes(clip)


def odd_input(scale: Scale) -> Measured:
    """Every clip of the list once."""
    wrong = []
    with shared_lab() as cluster:
        worker = cluster.workers[0]
        clips = odd_clips()
        for name, (make, right) in clips.items():
            got = answer(cluster, make())
            if got.status_code not in right:
                wrong.append(f"{name}: {got.status_code} {got.text[:80]}")
        alive = worker.poll() is None
    return Measured(
        not wrong and alive, f"{len(clips)} clips, wrong answers {wrong} (none), worker alive {alive}"
    )


def mutated(scale: Scale) -> Measured:
    """A good clip with bytes changed, dropped, doubled or swapped, four requests at a time."""
    files = scale.of(10_000)
    good = clip_bytes(size=(96, 64), seconds=1.0, audio=Sound(layout="mono", bit_rate=32_000))
    with shared_lab() as cluster, ThreadPoolExecutor(4) as crowd:
        worker = cluster.workers[0]

        def send(seed: int) -> int:
            return answer(cluster, mutate(good, random.Random(seed))).status_code

        codes = Counter(crowd.map(send, range(files)))
        alive = worker.poll() is None
    faults = sum(count for code, count in codes.items() if code >= 500)
    text = f"{files} files: {dict(sorted(codes.items()))}, 5xx {faults} (0), the worker lives on {alive}"
    return Measured(faults == 0 and alive, text)


def mutate(clip: bytes, chance: random.Random) -> bytes:
    """One to twenty changes; where the boxes with their sizes are as often as anywhere."""
    data = bytearray(clip)
    for _ in range(chance.randint(1, 20)):
        place = (
            chance.randrange(len(data)) if chance.random() < 0.5 else chance.randrange(min(2000, len(data)))
        )
        match chance.randrange(4):
            case 0:
                data[place] = chance.randrange(256)
            case 1:
                data[place : place + 4] = struct.pack(">I", chance.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF]))
            case 2:
                del data[place : place + chance.randint(1, 64)]
            case 3:
                data[place:place] = data[place : place + chance.randint(1, 64)]
    return bytes(data)


def bombs(scale: Scale) -> Measured:
    """Small files that ask for a great deal."""
    found = []
    with shared_lab() as cluster:
        answer(cluster, SAMPLE.read_bytes())  # the decoder's process is warm
        for name, make in BOMBS.items():
            clip = make()
            with Peak(family(cluster.api.pid if cluster.api else 0), every=0.005) as peak:
                began = time.monotonic()
                got = answer(cluster, clip)
                seconds = time.monotonic() - began
            grown = peak.grown / 2**20
            found.append((name, got.status_code, seconds, grown))
    ok = all(code in REFUSED and seconds <= 1 and grown <= 64 for _, code, seconds, grown in found)
    text = "; ".join(f"{name}: {code} in {s:.2f} s, {mb:.0f} MB" for name, code, s, mb in found)
    return Measured(ok, f"{text} (<= 1 s, <= 64 MB)")


def huge_png() -> bytes:
    """A header of 100,000 x 100,000 pixels with next to nothing behind it."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    )


def huge_mp4() -> bytes:
    """A track header and a sample entry that say 100,000 x 100,000 (and 65,535, all that 16 bits hold)."""
    clip = bytearray(clip_bytes(size=(160, 120), seconds=1.0))
    entry = clip.index(b"avc1", clip.index(b"stsd")) + 4 + 24
    struct.pack_into(">HH", clip, entry, 65_535, 65_535)
    header = clip.index(b"tkhd") + 4 + 76
    struct.pack_into(">II", clip, header, 100_000 << 16 & 0xFFFFFFFF, 100_000 << 16 & 0xFFFFFFFF)
    return bytes(clip)


def endless_mp4() -> bytes:
    """A table that says that a billion frames of one tick each follow."""
    clip = bytearray(clip_bytes(size=(160, 120), seconds=1.0))
    table = clip.index(b"stts") + 4
    struct.pack_into(">III", clip, table + 4, 1, 1_000_000_000, 512)
    sizes = clip.index(b"stsz") + 4
    struct.pack_into(">II", clip, sizes + 4, 100, 1_000_000_000)
    return bytes(clip)


def crowded_mp4(tracks: int = 1000) -> bytes:
    """So many copies of one track."""
    clip = clip_bytes(size=(160, 120), seconds=1.0, audio=False)
    moov = clip.index(b"moov") - 4
    size = struct.unpack_from(">I", clip, moov)[0]
    trak = clip.index(b"trak") - 4
    track = clip[trak : trak + struct.unpack_from(">I", clip, trak)[0]]
    body = clip[moov + 8 : moov + size] + track * (tracks - 1)
    return clip[:moov] + struct.pack(">I", len(body) + 8) + b"moov" + body + clip[moov + size :]


BOMBS = {
    "100,000 x 100,000 PNG": huge_png,
    "100,000 x 100,000 MP4": huge_mp4,
    "1e9 frames": endless_mp4,
    "1,000 tracks": crowded_mp4,
}


def playlists(scale: Scale) -> Measured:
    """Playlists under a video's name; a server of ours would see a connection, a 200 tell of a file read."""
    seen: list[str] = []
    with (
        shared_lab() as cluster,
        socket.create_server(("127.0.0.1", 0)) as trap,
        tempfile.TemporaryDirectory() as folder,
    ):
        trap.settimeout(0.1)
        url = f"http://127.0.0.1:{trap.getsockname()[1]}/a.ts"
        secret = Path(folder) / "secret.mp4"
        secret.write_bytes(SAMPLE.read_bytes())
        stop = threading.Event()

        def listen() -> None:
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    seen.append(str(trap.accept()[1]))

        watcher = threading.Thread(target=listen)
        watcher.start()
        codes = [answer(cluster, clip).status_code for clip in lists_of(url, secret)]
        stop.set()
        watcher.join()
    ok = set(codes) <= REFUSED and not seen
    return Measured(ok, f"answers {codes} (415 or 422), connections {len(seen)} (0)")


def lists_of(url: str, secret: Path) -> list[bytes]:
    """HLS, DASH, concat and reference movies, to a server and to a local file."""
    found = []
    for target in (url, f"file://{secret}", str(secret)):
        found += [
            f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{target}\n#EXT-X-ENDLIST\n".encode(),
            f"ffconcat version 1.0\nfile '{target}'\n".encode(),
            f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet>'
            f"<Representation><BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>".encode(),
            f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 5004 RTP/AVP 96\na=x:{target}\n".encode(),
        ]
    return found


def names(scale: Scale) -> Measured:
    """Names that would leave the folder they were meant for."""
    hostile = [
        "../../x",
        "/etc/passwd",
        "..\\..\\x",
        "a/../../b",
        "\u0000x",
        "x" * 5000,
        "~root/x",
        "%2e%2e%2fx",
        "x;rm",
    ]
    with shared_lab() as cluster:
        codes = {
            name[:12]: answer(cluster, SAMPLE.read_bytes(), "free", name=name).status_code for name in hostile
        }
        inside = [path for path in cluster.folder.rglob("*") if path.is_file()]
        shaped = all(not any(name.strip("./\\~")[:9] in path.name for name in hostile[:3]) for path in inside)
        paths = ["/v1/jobs/..%2f..%2fx", "/v1/jobs/../../x", "/v1/segment/..%2fx", "/v1/jobs/%00"]
        gets = [cluster.http.get(path, timeout=10).status_code for path in paths]
    ok = set(codes.values()) <= {200, 400} and shaped and set(gets) <= {404, 405, 422}
    return Measured(
        ok, f"uploads {Counter(codes.values())}, addresses {gets}, no file by such a name {shaped}"
    )


PROMISES = [
    Promise("13", "out of memory in the network: halved once, then 507; the worker goes on", out_of_memory),
    Promise("14a", "odd clips: 415/422 or a right answer, never a 500", odd_input),
    Promise("14b", "10,000 mutated files: no 5xx, no worker death", mutated),
    Promise("15a", "bombs are refused in <= 1 s and <= 64 MB", bombs),
    Promise("15b", "a playlist renamed .mp4: refused, no connection, no local file", playlists),
    Promise("15c", "names like ../../x never reach a path", names),
]
