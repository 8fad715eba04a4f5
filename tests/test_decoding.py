"""The sandbox: whatever a clip does to the decoder, the caller gets a window or one clear error, in time."""

from __future__ import annotations

import ctypes
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from models import media
from models.errors import MediaTooLarge, UndecodableMedia
from models.media import Limits, Media, Sampling, WindowPlan
from service.decoder import NICENESS
from service.decoding import Sandbox
from service.landlock import CREATE_RULESET, VERSION
from service.renders import RENDER_NICENESS
from service.settings import Settings
from tests import decoder_requests as requests
from tests.cluster import alive, family, until

CLIP = Media(video=Path(__file__).parent.parent / "service/samples/bell.mp4")
MEBIBYTE = 1024 * 1024
HAS_LANDLOCK = ctypes.CDLL(None).syscall(CREATE_RULESET, None, 0, VERSION) > 0


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    box = Sandbox(Settings(decode_seconds=20, decode_bytes=512 * MEBIBYTE))
    box.start()
    return box


@pytest.fixture
def hasty(sandbox: Sandbox) -> Iterator[Sandbox]:
    """A sandbox with little patience and little memory."""
    sandbox.seconds, sandbox.memory = 1.0, 128 * MEBIBYTE
    yield sandbox
    sandbox.seconds, sandbox.memory = 20.0, 512 * MEBIBYTE


def test_probe_and_windows_equal_those_read_here(sandbox: Sandbox) -> None:
    summary = sandbox.probe(CLIP)
    assert summary == media.probe(CLIP)
    for plan in media.plan(summary, Sampling(fps=4)):
        here = media.read_window(CLIP, summary, plan, rates=(44_100, 48_000))
        there = sandbox.read_window(CLIP, summary, plan, rates=(44_100, 48_000))
        assert there.frames is not None
        assert here.frames is not None
        np.testing.assert_array_equal(there.frames, here.frames)
        for rate in (44_100, 48_000):
            np.testing.assert_array_equal(there.audio[rate], here.audio[rate])
        assert replace(there, frames=None, audio={}) == replace(here, frames=None, audio={})


def test_without_pixels_none_come(sandbox: Sandbox) -> None:
    window = sandbox.read_window(CLIP, sandbox.probe(CLIP), WindowPlan(0, (0.0,)), pixels=False)
    assert window.frames is None
    assert window.audio == {}


def test_an_error_of_the_media_comes_through(sandbox: Sandbox, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    with pytest.raises(UndecodableMedia):
        sandbox.probe(Media(video=empty))
    with pytest.raises(MediaTooLarge, match="pixels"):
        sandbox.probe(CLIP, Limits(pixels=10))
    with pytest.raises(MediaTooLarge) as caught:
        sandbox.ask(requests.Refuse())
    assert (caught.value.limit, caught.value.allowed, caught.value.actual) == ("duration", 60, 61)


def test_arrays_come_over_bit_for_bit(sandbox: Sandbox) -> None:
    value, arrays = sandbox.ask(requests.Echo())
    _, expected = requests.Echo().answer()
    assert value["pid"] != os.getpid()
    assert arrays.keys() == expected.keys() - {"empty"} | {"empty"}
    for name, array in expected.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype
        assert not arrays[name].flags.writeable


@pytest.mark.parametrize("request_", [requests.Crash(), requests.Raise()])
@pytest.mark.filterwarnings("ignore")
def test_a_decoder_that_dies_is_one_clear_error(sandbox: Sandbox, request_: requests.Crash) -> None:
    with pytest.raises(UndecodableMedia, match="crashed"):
        sandbox.ask(request_)
    sandbox.ask(requests.Echo())


@pytest.mark.parametrize("request_", [requests.Hang(), requests.Spin()])
def test_a_decoder_that_hangs_is_killed_in_time(hasty: Sandbox, request_: requests.Hang) -> None:
    began = time.monotonic()
    with pytest.raises(UndecodableMedia, match=r"more than 1 s|crashed"):
        hasty.ask(request_)
    assert time.monotonic() - began < 3
    # Nothing is left: the only descendants are multiprocessing's two servers.
    assert len(psutil.Process().children(recursive=True)) <= 4


def test_a_decoder_that_swells_is_stopped(hasty: Sandbox) -> None:
    with pytest.raises(UndecodableMedia, match="more than 128 MiB"):
        hasty.ask(requests.Swell(256 * MEBIBYTE))
    assert hasty.ask(requests.Swell(32 * MEBIBYTE))[0] == 32 * MEBIBYTE


def test_a_decoder_does_not_outlive_its_worker() -> None:
    """Killed, the worker says nothing to anybody: the kernel must."""
    program = (
        "from service.decoding import Sandbox; from service.settings import Settings;"
        "from tests import decoder_requests; Sandbox(Settings()).ask(decoder_requests.Spin())"
    )
    worker = subprocess.Popen([sys.executable, "-c", program])
    try:
        assert until(lambda: any(one.nice() >= NICENESS for one in family(worker.pid)), 20)
        below = family(worker.pid)
        time.sleep(0.2)  # it has confined itself
    finally:
        worker.kill()
        worker.wait()
    assert until(lambda: not alive(below), 5) is not None, below


def test_a_decoder_has_no_network_and_few_files(sandbox: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
        assert sandbox.ask(requests.Connect(port))[0] in {"OSError", "ConnectionRefusedError"}
    assert sandbox.ask(requests.OpenMany())[0] < 64


def test_a_decoder_has_an_empty_environment_and_gives_way(sandbox: Sandbox) -> None:
    value, _ = sandbox.ask(requests.Surroundings())
    assert value == {"environment": {}, "niceness": min(19, os.nice(0) + NICENESS)}
    awaited, _ = Sandbox(Settings(), niceness=RENDER_NICENESS).ask(requests.Surroundings())
    assert awaited["niceness"] == min(19, os.nice(0) + RENDER_NICENESS) < value["niceness"]


@pytest.mark.skipif(not HAS_LANDLOCK, reason="This kernel has no Landlock.")
def test_a_decoder_touches_only_its_files(sandbox: Sandbox, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    clip, other, inside = tmp_path / "clip", tmp_path / "other", folder / "inside"
    for path in (clip, other, inside):
        path.touch()
    environment = Path(f"/proc/{os.getpid()}/environ")
    touch = requests.Touch(clip, other, inside, environment, folder / "new")
    value, _ = sandbox.ask(touch, reads=[clip], writes=[folder])
    assert value == {"rb": ["clip", "inside"], "ab": ["inside", "new"]}


@pytest.mark.parametrize(
    "lie",
    [
        requests.Lie(b"\x80\x04not json"),
        requests.Lie(b"[" * 3000),
        requests.Lie(b"{}"),
        requests.Lie(b"[]"),
        requests.Lie(b'{"error": {"kind": "SystemExit", "detail": "x"}}'),
        requests.Lie(b"{}", length=2**63),
        requests.Lie(requests.claim(shape=[2**62, 4])),
        requests.Lie(requests.claim(shape=[-1])),
        requests.Lie(requests.claim(offset=1 << 40)),
        requests.Lie(requests.claim(dtype="|O")),
        requests.Lie(requests.claim(name=["x"])),
    ],
)
def test_a_decoder_that_lies_is_refused(sandbox: Sandbox, lie: requests.Lie) -> None:
    with pytest.raises(UndecodableMedia, match=r"misbehaved|crashed"):
        sandbox.ask(lie)


def test_an_answer_cannot_change_after_it_was_checked(sandbox: Sandbox) -> None:
    with pytest.raises(UndecodableMedia, match="misbehaved"):
        sandbox.ask(requests.Linger())


def test_many_threads_share_the_sandbox(sandbox: Sandbox) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = [value["pid"] for value, _ in pool.map(lambda _: sandbox.ask(requests.Echo()), range(40))]
    assert len(set(answers)) == 40


def test_no_descriptor_leaks(sandbox: Sandbox) -> None:
    sandbox.ask(requests.Echo())
    before = psutil.Process().num_fds()
    for _ in range(10):
        sandbox.ask(requests.Echo())
    with pytest.raises(UndecodableMedia):
        sandbox.ask(requests.Crash())
    assert psutil.Process().num_fds() <= before + 1


def test_a_call_costs_milliseconds(sandbox: Sandbox) -> None:
    # CPU time, since the machine may be busy; a child that imports anything of the parent takes 200 ms.
    costs = [sandbox.ask(requests.Cost())[0] for _ in range(10)]
    assert statistics.median(costs) < 0.04, costs  # 0.008 on two cores of a server
