"""The parity harness: it passes on the golden files, and does not pass on anything else."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.parity.__main__ import AGAIN, GROUPS, compare, main
from tests.parity.golden import DEFAULT, Golden
from tests.parity.row import Row, absolute, exact, relative, skipped, statistics


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden(DEFAULT)


def altered(golden: Golden, folder: Path, **arrays: np.ndarray) -> Golden:
    """A folder whose visual.npz has these arrays in place of, or besides, its own; with the same weights."""
    np.savez(folder / "visual.npz", **(dict(golden.arrays("visual")) | arrays))
    other = Golden(folder)
    other.__dict__["audioclip"] = golden.audioclip
    return other


def test_the_image_tower_agrees(golden: Golden) -> None:
    rows = list(compare(golden, "visual"))
    assert {row.name for row in rows} == {f"visual/{name}" for name in golden.arrays("visual")}
    assert [str(row) for row in rows if not row.ok] == []


def test_a_value_off_by_little_more_than_the_tolerance_fails(golden: Golden, tmp_path: Path) -> None:
    wrong = golden.arrays("visual")["F4"].copy()
    wrong[0, 7, 3, 3] += 3e-5 * np.abs(wrong).max()
    failed = [row.name for row in compare(altered(golden, tmp_path, F4=wrong), "visual") if not row.ok]
    assert failed == ["visual/F4"]


def test_another_input_fails(golden: Golden, tmp_path: Path) -> None:
    wrong = golden.arrays("visual")["image_sub"] + np.float32(1e-5)
    failed = [row.name for row in compare(altered(golden, tmp_path, image_sub=wrong), "visual") if not row.ok]
    assert failed == ["visual/image_sub"]


def test_an_array_that_no_row_compares_fails(golden: Golden, tmp_path: Path) -> None:
    other = altered(golden, tmp_path, F9=np.zeros(3))
    assert [row.name for row in compare(other, "visual") if not row.ok] == ["visual/F9"]


def test_a_folder_may_bring_its_own_weights(golden: Golden, tmp_path: Path) -> None:
    source = (DEFAULT / "det.py").read_text()
    (tmp_path / "det.py").write_text(source.replace("1 + 0.1 * n()", "1 + 0.2 * n()"))
    own = Golden(tmp_path).det.det("audio.fbsp.m", (5,))
    np.testing.assert_allclose(own - 1, 2 * (golden.det.det("audio.fbsp.m", (5,)) - 1), rtol=1e-5)


@pytest.mark.parametrize(
    "row",
    [
        relative("shape", np.zeros(3), np.zeros(4)),
        relative("nan", np.array([np.nan]), np.array([1.0])),
        absolute("inf", np.array([np.inf]), np.array([1.0]), 1.0),
        exact("text", np.array(["a"]), np.array(["b"])),
        exact("shape", np.zeros((2, 1)), np.zeros(2)),
        statistics("sum", np.array([0, 1, 0, 1, 2.0]), np.array([0, 1, 0, 1, 2.1])),
        statistics("mean", np.array([0, 1, 0, 1, 2.0]), np.array([0.1, 1, 0, 1, 2.0])),
    ],
    ids=str,
)
def test_what_cannot_be_equal_fails(row: Row) -> None:
    assert not row.ok
    assert "FAIL" in str(row)


def test_equal_arrays_pass_whatever_their_kind() -> None:
    values = torch.arange(4.0)
    assert relative("r", values, values.numpy()).ok
    assert exact("e", values, values.numpy()).ok
    assert str(skipped("tokens", "vocabulary missing")).endswith("skipped: vocabulary missing")


def test_the_wrong_folder_is_told_apart_from_a_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "holds no golden file" in capsys.readouterr().err
    assert main([str(DEFAULT), "visuals"]) == 2
    assert "no group named visuals" in capsys.readouterr().err


def test_what_a_folder_lacks_or_has_too_many_is_said_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tests.parity.__main__.GROUPS", {name: GROUPS[name] for name in ("points", "cavp")})
    arrays = dict(Golden(DEFAULT).arrays("cavp"))
    np.savez(tmp_path / "cavp.npz", **arrays)
    np.savez(tmp_path / "more.npz", a=np.zeros(1))
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "skipped: this folder holds no points.npz" in out
    assert "skipped: no group compares this file" in out
    assert out.endswith("3 of 3 rows ok, 2 skipped.\n")

    np.savez(tmp_path / "cavp.npz", anchors=arrays["anchors"], labels=arrays["labels"], extra=np.zeros(2))
    assert main([str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert re.search(r"cavp/info_nce +FAIL: the file has no such array", out)
    assert re.search(r"cavp/extra +FAIL: never compared", out)

    del arrays["labels"]  # without which nothing can be computed
    np.savez(tmp_path / "cavp.npz", **arrays)
    (tmp_path / "points.npz").write_bytes(b"not an archive")
    assert main([str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert re.search(r"cavp +FAIL: cannot be compared: .*; it lacks labels", out)
    assert re.search(r"points +FAIL: .* cannot be read as an \.npz file", out)


def test_a_det_py_that_does_not_run_fails_its_groups_and_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("visual", "cavp"):
        shutil.copy(DEFAULT / f"{name}.npz", tmp_path)
    (tmp_path / "det.py").write_text("raise SystemError('no')")
    assert main([str(tmp_path), "visual", "cavp"]) == 1
    out = capsys.readouterr().out
    assert "cannot be compared: SystemError: no" in out
    assert re.search(r"cavp/info_nce .* ok", out)


def test_inputs_come_from_the_folders_own_generator(golden: Golden, tmp_path: Path) -> None:
    source = (DEFAULT / "det.py").read_text()
    (tmp_path / "det.py").write_text(source.replace("RandomState(seed)", "RandomState(seed + 1)"))
    assert torch.equal(Golden(tmp_path).normal(6, 3, 4), golden.normal(7, 3, 4))
    (tmp_path / "det.py").write_text("")
    assert torch.equal(Golden(tmp_path).normal(6, 3, 4), golden.normal(6, 3, 4))


def test_the_exit_status_says_whether_a_row_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(DEFAULT / "det.py", tmp_path)
    np.savez(tmp_path / "waves.npz", wave=Golden(DEFAULT).det.waves())
    group = {"waves": lambda golden: iter([exact("wave", golden.waves, golden.arrays("waves")["wave"])])}
    monkeypatch.setattr("tests.parity.__main__.GROUPS", group)
    assert main([str(tmp_path)]) == 0
    np.savez(tmp_path / "waves.npz", wave=Golden(DEFAULT).det.waves() + 1)
    assert main([str(tmp_path)]) == 1
    assert "FAIL" in capsys.readouterr().out


def test_every_golden_file_of_ours_has_its_group() -> None:
    assert GROUPS.keys() >= {"audioclip_audio", "audioclip_forward", "visual", "acfpn", "train_step"}
    for group in GROUPS.keys() - AGAIN:
        assert Golden(DEFAULT).arrays(group)
