"""The loop of the tiny family, on a network that learns in a moment."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.checkpoints import read_safetensors
from models.errors import DatasetInvalid, TrainingDiverged
from models.files import metadata
from models.training.family import loop
from models.training.family.loop import Habits, train
from models.training.family.task import Plan


class Pairs(NamedTuple):
    x: Tensor
    y: Tensor


class Line:
    """y = 2x + 1, with a layer that is thrown away. Implements `Task`."""

    name = "line-tiny"

    def __init__(self, plan: Plan, spoilt: int | None = None) -> None:
        self.plan, self.spoilt = plan, spoilt
        torch.manual_seed(plan.seed)
        self.network = nn.Linear(1, 1)
        self.learner = nn.Sequential(self.network, nn.Dropout(0.0), nn.Linear(1, 1))

    def batch(self, step: int) -> Pairs:
        x = torch.rand(self.plan.batch, 1, generator=torch.Generator().manual_seed(step))
        return Pairs(x, 2 * x + 1 if step != self.spoilt else x * float("nan"))

    def losses(self, batch: Pairs) -> dict[str, Tensor]:
        noise = 0.01 * torch.randn(1)  # torch's generator is part of a state
        return {
            "near": F.mse_loss(self.network(batch.x) + noise, batch.y),
            "far": 0.1 * self.learner(batch.x).square().mean(),
        }

    def scores(self) -> dict[str, float]:
        x = torch.linspace(0, 1, 20)[:, None]
        return {"nearness": -F.mse_loss(self.network(x), 2 * x + 1).item()}


PLAN = Plan(steps=120, batch=16, best="nearness", rate=0.1, decay=0.0, warmup=5, validate_every=40, seed=3)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run's folder."""
    out = tmp_path_factory.mktemp("line") / "run"
    train(Line(PLAN), Habits(out, device="cpu", save_every=10))
    return out


def test_it_learns_and_says_what_it_is(unbroken: Path) -> None:
    weights = read_safetensors(unbroken / "weights.safetensors")
    assert weights["weight"].item() == pytest.approx(2, abs=0.3)
    told = metadata(unbroken / "weights.safetensors")
    assert told["earshot"] == "line-tiny"
    assert json.loads(told["plan"])["seed"] == 3
    rows = [json.loads(line) for line in (unbroken / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [20, 40, 60, 80, 100, 120]
    assert rows[-1]["near"] < rows[0]["near"]
    best = json.loads((unbroken / "scores.json").read_text())["nearness"]
    assert best == pytest.approx(max(row.get("nearness", -9) for row in rows), rel=1e-4)


def test_a_killed_run_goes_on_to_the_same_weights(unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    code = (
        "import time\nfrom pathlib import Path\nfrom tests.test_family import PLAN, Habits, Line, train\n"
        "class Slow(Line):\n"
        "    def batch(self, step):\n        time.sleep(0.02)\n        return super().batch(step)\n"
        f"train(Slow(PLAN), Habits(Path({str(out)!r}), device='cpu', save_every=10))\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(out.glob("state-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not (out / "weights.safetensors").exists()
    (out / "log.jsonl").write_text(
        '{"step": 60, "near": 0.1}\n{"step": 80, "ne'
    )  # beyond its state, and half
    train(Line(PLAN), Habits(out, device="cpu", save_every=10, resume=True))
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows].count(60) == 1
    after, before = (read_safetensors(folder / "weights.safetensors") for folder in (out, unbroken))
    assert all(torch.equal(after[key], before[key]) for key in before)


def test_a_loss_that_is_no_number_stops_it_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(TrainingDiverged, match=r"stopped at step 26: losses near nan"):
        train(Line(PLAN, spoilt=25), Habits(out, device="cpu", save_every=10))
    kept = read_safetensors(out / "state-00000020" / "learner.safetensors")
    assert all(tensor.isfinite().all() for tensor in kept.values())


def test_a_folder_is_one_run(unbroken: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetInvalid, match="add --resume"):
        train(Line(PLAN), Habits(unbroken, device="cpu"))
    other = Plan(**{**vars(PLAN), "seed": 4})
    with pytest.raises(DatasetInvalid, match="of another run"):
        train(Line(other), Habits(unbroken, device="cpu", resume=True))
    (tmp_path / "letter.txt").write_text("not a run")
    with pytest.raises(DatasetInvalid, match="holds no run"):
        train(Line(PLAN), Habits(tmp_path, device="cpu"))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "plan.json").write_text("{")
    with pytest.raises(DatasetInvalid, match="is not JSON"):
        train(Line(PLAN), Habits(broken, device="cpu", resume=True))


def test_a_state_that_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(loop, "write_safetensors", full)
    with pytest.raises(OSError, match="No space"):
        train(Line(PLAN), Habits(tmp_path / "run", device="cpu", save_every=10))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["plan.json"]


def test_weights_get_their_name_when_they_are_whole(unbroken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(_: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    before = (unbroken / "weights.safetensors").read_bytes()
    monkeypatch.setattr(loop.shutil, "copyfile", half)
    with pytest.raises(OSError, match="No space"):
        train(Line(PLAN), Habits(unbroken, device="cpu", resume=True))
    assert (unbroken / "weights.safetensors").read_bytes() == before
    assert not list(unbroken.glob(".*"))
