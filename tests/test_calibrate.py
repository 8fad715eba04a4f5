"""Calibration: the threshold between seconds that fit their frame and seconds that do not, written once."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from models.training.calibrate import Seconds, balance, chosen, main, table
from models.weights import FRAME, NAME, Weights
from tests.tiny_networks import tiny_networks


def seconds(*cosines: float, loudness: float = -20.0) -> Seconds:
    return Seconds(np.array(cosines, np.float32), np.full(len(cosines), loudness, np.float32))


def test_the_threshold_lies_between_what_is_kept_and_what_is_refused() -> None:
    kept = seconds(0.5, 0.6, 0.7)
    refused = {"noise": seconds(0.1, 0.2), "offscreen": seconds(0.3)}
    assert chosen(kept, refused) == pytest.approx(0.4)
    assert balance(0.4, kept, refused) == 1
    assert balance(-1.0, kept, refused) == 0
    assert balance(0.9, kept, refused) == 0


def test_kinds_of_refusal_count_alike_however_many_seconds_they_have() -> None:
    """One off-screen second in the way of many kept ones weighs as much as all of the noise."""
    kept = seconds(*[0.5] * 10, *[0.2] * 10)
    many = {"noise": seconds(*[0.1] * 1000), "offscreen": seconds(0.3, 0.3)}
    assert chosen(kept, many) == pytest.approx(0.15)
    assert chosen(kept, {**many, "silence": seconds(0.3), "more": seconds(0.3)}) == pytest.approx(0.4)


def test_silence_is_refused_by_its_energy() -> None:
    assert seconds(0.9, 0.9, loudness=-200).passing(-1.0) == 0
    assert seconds(0.9, 0.9).passing(0.5) == 1
    printed = table(0.4, seconds(0.5), {"silence": seconds(0.9, loudness=-200)})
    assert "agreement 0.400" in printed


def test_the_command_writes_what_it_measured_and_dry_runs_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tiny_networks(tmp_path).weights
    monkeypatch.setattr("models.training.calibrate.Weights", lambda folder: weights)
    words = ["--clips", "2", "--size", "64"]
    assert main([*words, "--dry-run"]) == 0
    assert weights.calibration("audioclip") == {}
    assert main(words) == 0
    assert weights.calibration("audioclip").keys() == {FRAME, NAME}
    assert weights.calibration("clap").keys() == {NAME}
    for network in ("audioclip", "clap"):
        assert all(-1 <= threshold <= 1 for threshold in weights.calibration(network).values())
    printed = capsys.readouterr().out
    assert "in view" in printed and "clap" in printed


def test_without_weights_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = Weights(tmp_path, tiny=tmp_path / "none")
    monkeypatch.setattr("models.training.calibrate.Weights", lambda folder: nothing)
    assert main([]) == 2
    assert "python -m service weights fetch audioclip" in capsys.readouterr().err
    for wrong in (["--clips", "0"], ["--size", "8"]):
        with pytest.raises(SystemExit, match="2"):
            main(wrong)


def test_a_lock_that_cannot_be_written_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tiny_networks(tmp_path).weights

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(weights, "calibrate", full)
    monkeypatch.setattr("models.training.calibrate.Weights", lambda folder: weights)
    assert main(["--clips", "1", "--size", "64", "--weights-dir", str(tmp_path)]) == 2
    assert f"{tmp_path} cannot be written: the disk is full." in capsys.readouterr().err
