"""The command line: what it says, what it writes and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from service.__main__ import main, settings
from service.redis_server import PrivateRedis, RedisAway, check
from service.segment import read_options
from service.worker import check_redis
from tests.cluster import ROOT, SAMPLE, Cluster

COMMANDS = ["serve", "api", "worker", "segment", "weights"]


def run(*words: object) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "service", *map(str, words)]
    return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as running:
        yield running


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert "usage" in capsys.readouterr().out


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    assert [command for command in COMMANDS if command not in text] == []


def test_asking_for_a_clip_loads_neither_server_nor_networks() -> None:
    program = (
        "import sys; from service.__main__ import main; main(['segment', 'nowhere.mp4']);"
        "sys.exit(bool({'torch', 'redis', 'fastapi', 'pydantic', 'av'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=False)
    assert ended.returncode == 0


def test_options_nest_at_dots() -> None:
    assert read_options(
        ["fps=2", "thresholds.mask=0.6", 'labels=["a", "b"]', "preset=paper", "end=null"]
    ) == {
        "fps": 2,
        "thresholds": {"mask": 0.6},
        "labels": ["a", "b"],
        "preset": "paper",
        "end": None,
    }


def test_a_file_of_lines_is_a_list(tmp_path: Path) -> None:
    captions = tmp_path / "captions.txt"
    captions.write_text("A dog barks.\n\n  Bells ring. \n")
    assert read_options(["labels=dog", "fps=2", "labels=bell"]) == {"labels": ["dog", "bell"], "fps": 2}
    assert read_options([f"captions=@{captions}"]) == {"captions": ["A dog barks.", "Bells ring."]}
    with pytest.raises(ValueError, match=r"none\.txt cannot be read as lines"):
        read_options([f"captions=@{tmp_path / 'none.txt'}"])


@pytest.mark.parametrize("pairs", [["fps"], ["=2"], ["outputs=1", "outputs.mask=png"]])
def test_options_that_make_no_sense(pairs: list[str]) -> None:
    with pytest.raises(ValueError, match="option"):
        read_options(pairs)


@pytest.mark.parametrize("count", ["0", "-1", "x"])
def test_a_service_without_workers_is_refused(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--workers", count])
    assert "give 1 or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "called"),
    [
        ("EARSHOT_WORKER_THREADS", "many", "EARSHOT_WORKER_THREADS"),
        ("REDIS_URL", "localhost:6379", "EARSHOT_REDIS_URL"),
        ("EARSHOT_API_KEYS", "acme:my own key", "EARSHOT_API_KEYS"),
        ("EARSHOT_LOG_LEVEL", "loud", "EARSHOT_LOG_LEVEL"),
        ("EARSHOT_HEARTBEAT_SECONDS", "20", "EARSHOT_HEARTBEAT_SECONDS"),
    ],
)
def test_a_wrong_setting_is_a_sentence(
    name: str, value: str, called: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        main(["worker"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"A setting has a wrong value. {called}: ")
    assert value not in said
    assert "Value error" not in said


def test_a_worker_refuses_a_redis_that_would_forget(
    own_redis: PrivateRedis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    monkeypatch.setenv("STORAGE_URL", f"file://{tmp_path}/storage")
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
    ended = run("worker")
    assert ended.returncode == 2
    assert ended.stderr.endswith("set `maxmemory-policy noeviction`.\n")
    assert "Traceback" not in ended.stderr


def test_a_redis_that_is_away_is_no_reason_to_end() -> None:
    with pytest.raises(RedisAway, match="cannot be reached"):
        check("redis://127.0.0.1:1/0")
    check_redis("redis://127.0.0.1:1/0")


def test_a_log_level_may_be_in_small_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARSHOT_LOG_LEVEL", "warning")
    assert settings().log_level == "WARNING"


@pytest.mark.parametrize("command", ["serve", "api", "worker"])
@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        pytest.param("file:///proc/earshot", "/proc/earshot/partial cannot be written to (", id="read-only"),
        pytest.param("floppy://key:secret@a/b", "STORAGE_URL is floppy://a/b, which cannot", id="unknown"),
        pytest.param("", "A setting has a wrong value. EARSHOT_STORAGE_URL: ", id="empty"),
        pytest.param(
            "memory://", "STORAGE_URL is memory://, which every process has for itself", id="memory"
        ),
        pytest.param("https://k:secret@a/b", "STORAGE_URL is https://a/b, which nobody can write", id="http"),
        pytest.param("simplecache::memory://a", "STORAGE_URL is simplecache::memory://a, which", id="chain"),
    ],
)
def test_a_storage_that_cannot_be_is_a_sentence(
    command: str, url: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STORAGE_URL", url)
    with pytest.raises(SystemExit) as ended:
        main([command])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(sentence)
    assert said.count("\n") == 1
    assert "secret" not in said


def test_a_scratch_folder_that_cannot_be_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("EARSHOT_SCRATCH_DIR", str(tmp_path / "file"))
    with pytest.raises(SystemExit) as ended:
        main(["worker"])
    assert ended.value.code == 2
    assert "name another folder in EARSHOT_SCRATCH_DIR" in capsys.readouterr().err


def test_a_missing_file_is_the_callers_mistake(tmp_path: Path) -> None:
    ended = run("segment", tmp_path / "nowhere.mp4")
    assert ended.returncode == 2
    assert ended.stderr == f"There is no file {tmp_path / 'nowhere.mp4'}.\n"


def test_a_folder_that_cannot_be_made_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is asked of a service: there is none here."""
    (tmp_path / "file").write_bytes(b"")
    assert main(["segment", str(SAMPLE), "-o", str(tmp_path / "file" / "out")]) == 1
    assert "cannot be written: Not a directory" in capsys.readouterr().err


def test_a_missing_server_is_a_sentence() -> None:
    ended = run("segment", SAMPLE, "--url", "http://127.0.0.1:1")
    assert ended.returncode == 1
    assert "No service answers at http://127.0.0.1:1" in ended.stderr
    assert "make serve" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_clip_becomes_masks_in_a_folder(cluster: Cluster, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [
        "--strategy",
        "full-mask",
        "--option",
        "fps=2",
        "--option",
        "outputs.instances=false",
    ]
    ended = run("segment", SAMPLE, *words, "-o", out, "--url", cluster.url)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == f"10 frames; 11 files in {out}\n"
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "masks"]
    assert len(list((out / "masks").glob("*.png"))) == 10
    assert json.loads((out / "manifest.json").read_text())


def test_the_service_explains_a_wrong_option(cluster: Cluster, tmp_path: Path) -> None:
    words = ["--strategy", "full-mask", "--option", "fps=-1", "-o", tmp_path, "--url", cluster.url]
    ended = run("segment", SAMPLE, *words)
    assert ended.returncode == 2
    assert "/fps" in ended.stderr


def test_a_clip_that_is_none(cluster: Cluster, tmp_path: Path) -> None:
    clip = tmp_path / "noise.mp4"
    clip.write_bytes(b"noise" * 100)
    ended = run("segment", clip, "--strategy", "full-mask", "-o", tmp_path / "out", "--url", cluster.url)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    assert list((tmp_path / "out").iterdir()) == []
