"""`python -m models.media CLIP`: JSON lines, or one sentence and no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.clips import make_clip

ROOT = Path(__file__).resolve().parent.parent
SIZE = (160, 120)
RUN = [sys.executable, "-W", "error", "-m", "models.media"]


def test_command_line(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    make_clip(path, seconds=2, size=SIZE)
    good = subprocess.run([*RUN, path], cwd=ROOT, capture_output=True, text=True, check=True)
    summary, window = map(json.loads, good.stdout.splitlines())
    assert (summary["width"], summary["height"]) == SIZE and window["timestamps"] == [0.0, 1.0]
    path.write_bytes(b"no clip")
    bad = subprocess.run([*RUN, path], cwd=ROOT, capture_output=True, text=True, check=False)
    assert bad.returncode == 2 and bad.stdout == "" and bad.stderr.count("\n") == 1
    assert str(tmp_path) not in bad.stderr


def test_a_reader_that_leaves_and_a_full_disk_end_it_quietly(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    make_clip(path, seconds=2, size=SIZE)
    with subprocess.Popen(
        [*RUN, path], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == ("", 1)
    with Path("/dev/full").open("w") as full:
        run = subprocess.run(
            [*RUN, path], cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert run.returncode == 1 and run.stderr == "The output cannot be written: No space left on device.\n"
