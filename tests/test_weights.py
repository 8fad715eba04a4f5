"""Weights: a real server on loopback that cuts, lies and forgets; checkpoints cut short or running code."""

from __future__ import annotations

import argparse
import hashlib
import http.server
import os
import pickle
import re
import resource
import shutil
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models import download as downloading
from models.acfpn import ACFPN, CONFIG, AcFpnConfig, load_acfpn
from models.checkpoints import Rules, load_into, read_checkpoint, write_safetensors
from models.errors import WeightsInvalid, WeightsMissing
from models.install import fetch, import_checkpoint, install_trained, verify
from models.weights import LOCK, NETWORKS, WEIGHTS, Weight, Weights, is_tiny, read_lock
from models.weights_cli import main

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA = hashlib.sha256(BODY).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves one body. `cut_after` ends the first answers early; `requests` keeps the Range headers seen."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = BODY
        self.status = 200
        self.ranges = True
        self.etag = True
        self.cut_after: list[int] = []
        self.requests: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file.bin"


class Handler(http.server.BaseHTTPRequestHandler):
    """GET with Range and If-Range, as far as the server's switches allow."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        asked = self.headers.get("Range")
        server.requests.append(asked)
        etag = f'"{hashlib.sha256(server.body).hexdigest()[:16]}"'
        start = 0
        if asked and server.ranges and self.headers.get("If-Range") == etag:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if server.status != 200:
            self.send_error(server.status)
            return
        if start >= len(server.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.body)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        if server.etag:
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(server.body) - start))
        self.end_headers()
        end = start + server.cut_after.pop(0) if server.cut_after else len(server.body)
        self.wfile.write(server.body[start:end])
        if end < len(server.body):
            self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow at once, and the spare room is small: the test disk may be nearly full."""
    monkeypatch.setattr(downloading, "PAUSE", 0.0)
    monkeypatch.setattr(downloading, "SPARE", 1 << 20)


@pytest.fixture
def weights(tmp_path: Path, server: Server) -> Weights:
    """A folder and a registry of one asset on the local server, its hash published."""
    asset = Weight("file.bin", server.url, SHA, len(BODY), "MIT", ("sam",))
    return Weights(tmp_path / "weights", registry={**WEIGHTS, "asset": asset}, tiny=tmp_path / "tiny")


def get(weights: Weights) -> Path:
    return fetch(weights, "asset", progress=False)


def left_over(weights: Weights) -> set[str]:
    return {path.name for path in weights.folder.iterdir()} - {LOCK}


def test_a_download_is_checked_recorded_and_not_repeated(weights: Weights, server: Server) -> None:
    assert get(weights).read_bytes() == BODY
    assert get(weights).read_bytes() == BODY
    assert len(server.requests) == 1
    assert left_over(weights) == {"file.bin"}
    assert read_lock(weights.folder)["asset"]["sha256"] == SHA
    identity = weights.identity("asset")
    assert (identity.id, identity.sha256, identity.licence, identity.family) == (
        "asset",
        SHA,
        "MIT",
        "published",
    )


def test_a_cut_connection_is_resumed_where_it_broke(weights: Weights, server: Server) -> None:
    server.cut_after = [300_000, 200_000]
    assert get(weights).read_bytes() == BODY
    assert server.requests == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_call_goes_on_from_the_part_of_an_earlier_one(weights: Weights, server: Server) -> None:
    server.cut_after = [300_000] + [0] * downloading.ATTEMPTS
    with pytest.raises(WeightsMissing, match="run the same command again"):
        get(weights)
    assert left_over(weights) == {"file.bin.part", "file.bin.part.json"}
    server.requests.clear()
    assert get(weights).read_bytes() == BODY
    assert server.requests == ["bytes=300000-"]


def test_a_part_that_is_already_whole_costs_one_empty_answer(weights: Weights, server: Server) -> None:
    server.cut_after = [300_000] + [0] * downloading.ATTEMPTS
    with pytest.raises(WeightsMissing):
        get(weights)
    (weights.folder / "file.bin.part").write_bytes(BODY)
    assert get(weights).read_bytes() == BODY


def test_a_file_that_changed_on_the_server_is_fetched_from_the_start(
    weights: Weights, server: Server
) -> None:
    server.cut_after = [300_000] + [0] * downloading.ATTEMPTS
    server.body = BODY[::-1]
    with pytest.raises(WeightsMissing):
        get(weights)
    server.body = BODY
    assert get(weights).read_bytes() == BODY


@pytest.mark.parametrize("switch", ["ranges", "etag"])
def test_a_server_that_cannot_resume_is_asked_for_the_whole(
    weights: Weights, server: Server, switch: str
) -> None:
    setattr(server, switch, False)
    server.cut_after = [300_000]
    assert get(weights).read_bytes() == BODY
    assert len(server.requests) == 2


def test_a_wrong_hash_leaves_nothing(weights: Weights, server: Server) -> None:
    server.body = BODY[:-1] + b"!"
    with pytest.raises(WeightsInvalid, match=f"wrong sha256.*expected {SHA}"):
        get(weights)
    assert left_over(weights) == set()
    assert not weights.installed("asset")


def test_without_a_published_hash_the_first_download_is_the_reference(
    weights: Weights, server: Server
) -> None:
    unpublished = replace(weights.registry["asset"], sha256=None)
    weights.registry = {**weights.registry, "asset": unpublished}
    get(weights).unlink()
    server.body = BODY[::-1]
    with pytest.raises(WeightsInvalid, match="wrong sha256"):
        get(weights)
    server.body = BODY
    assert get(weights).read_bytes() == BODY


@pytest.mark.parametrize(("status", "attempts"), [(404, 1), (503, downloading.ATTEMPTS)])
def test_a_refusal_names_the_status(weights: Weights, server: Server, status: int, attempts: int) -> None:
    server.status = status
    with pytest.raises(WeightsMissing, match=str(status)):
        get(weights)
    assert len(server.requests) == attempts


def test_no_server_is_said_soon_and_in_a_sentence(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "PAUSE", 0.1)
    nowhere = replace(weights.registry["asset"], url="http://127.0.0.1:9/file.bin")  # the discard port
    weights.registry = {**weights.registry, "asset": nowhere}
    began = time.monotonic()
    with pytest.raises(WeightsMissing, match=r"127.0.0.1 cannot be reached .*HTTPS_PROXY"):
        get(weights)
    assert time.monotonic() - began < 2, "a server that is missing is not waited for like a busy one: 3 s"


def test_a_full_disk_is_noticed_before_the_first_byte(
    weights: Weights, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(WeightsMissing, match="Not enough disk space"):
        get(weights)
    assert server.requests == []


def test_a_disk_that_fills_on_the_way_is_said_in_a_sentence(weights: Weights) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (len(BODY) // 2, hard)
    )  # a write beyond it fails, as on a full disk
    try:
        with pytest.raises(WeightsMissing, match="cannot be written: File too large"):
            get(weights)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert get(weights).read_bytes() == BODY


def test_two_downloads_of_one_file_do_not_mix(weights: Weights, tmp_path: Path) -> None:
    part = tmp_path / "file.bin.part"
    with part.open("ab") as first, part.open("ab") as second:
        downloading._alone(first, part)
        with pytest.raises(WeightsMissing, match="Another process"):
            downloading._alone(second, part)


def test_a_file_changed_behind_our_back_is_refused(weights: Weights) -> None:
    path = get(weights)
    assert weights.path("asset") == path
    path.write_bytes(BODY[::-1])
    with pytest.raises(WeightsInvalid, match="is not the file it was"):
        weights.path("asset")
    assert list(verify(weights)) == [("asset", next(problem for _, problem in verify(weights)))]
    assert next(problem for _, problem in verify(weights)) is not None


def test_each_file_is_hashed_once_a_process(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    get(weights)
    monkeypatch.setattr("models.files.hash_file", lambda *_: pytest.fail("hashed again"))
    weights.path("asset")


@pytest.mark.parametrize("network", NETWORKS)
def test_missing_weights_name_the_command_that_brings_them(weights: Weights, network: str) -> None:
    with pytest.raises(WeightsMissing, match=r"python -m service weights (fetch|import) [\w-]+"):
        weights.path(network)


def test_an_unknown_name_lists_the_known_ones(weights: Weights) -> None:
    with pytest.raises(WeightsMissing, match=r"no weights named sam-vit-x.*sam-vit-h"):
        weights.path("sam-vit-x")
    with pytest.raises(WeightsMissing, match="choose sam-vit-h"):
        Weights(weights.folder, prefer={"sam": "clap-tiny"})


def test_a_network_prefers_the_largest_installed_and_falls_back_to_tiny(weights: Weights) -> None:
    state = {"a": torch.ones(2)}
    install_trained(weights, "sam-tiny", state, source="trained in a test")
    assert weights.identity("sam").family == "tiny"
    assert weights.path("sam").parent == weights.tiny
    install_trained(weights, "sam-vit-b", state, source="test")
    assert weights.resolve("sam") == "sam-vit-b"
    tiny = Weights(weights.folder, tiny=weights.tiny, prefer={"sam": "sam-tiny"})
    assert tiny.resolve("sam") == "sam-tiny"


def test_a_weight_is_incomplete_without_its_vocabulary(weights: Weights) -> None:
    install_trained(weights, "clap-630k-audioset-best", {"a": torch.ones(1)}, source="test")
    assert not weights.installed("clap")


def test_the_registry_is_consistent() -> None:
    for name, weight in WEIGHTS.items():
        assert set(weight.used_by) <= set(NETWORKS), name
        assert set(weight.needs) <= set(WEIGHTS), name
        assert weight.sha256 is None or re.fullmatch("[0-9a-f]{64}", weight.sha256), name
        assert not is_tiny(name)
    assert {choice for names in NETWORKS.values() for choice in names} <= set(WEIGHTS)


def test_the_published_vocabulary_has_the_hash_of_the_registry() -> None:
    path = Path(__file__).resolve().parents[2] / "shared/reference" / WEIGHTS["audioclip-bpe"].file
    if not path.exists():
        pytest.skip(f"{path.name} is not on this machine")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == WEIGHTS["audioclip-bpe"].sha256
    assert path.stat().st_size == WEIGHTS["audioclip-bpe"].bytes


class RunsCode:
    """A pickle that would leave a file behind when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused(weights: Weights, tmp_path: Path, zipped: bool) -> None:
    trace = tmp_path / "trace"
    source = tmp_path / "evil.pth"
    torch.save({"model": RunsCode(trace)}, source, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsInvalid, match=r"evil.pth is refused: reading it would call posix.system"):
        import_checkpoint(weights, "ac-fpn", source)
    assert not trace.exists()
    assert left_over(weights) == set()


def test_a_plain_pickle_is_refused_without_a_word_of_torch(weights: Weights, tmp_path: Path) -> None:
    """Warnings are errors here."""
    source = tmp_path / "evil.pth"
    source.write_bytes(pickle.dumps({"model": RunsCode(tmp_path / "trace")}, protocol=4))
    with pytest.raises(WeightsInvalid, match=r"evil\.pth"):
        import_checkpoint(weights, "ac-fpn", source)
    assert not (tmp_path / "trace").exists()


def test_the_records_of_a_training_run_are_read_as_nothing(tmp_path: Path) -> None:
    source = tmp_path / "run.pth"
    torch.save(
        {
            "args": argparse.Namespace(lr=1.0, nested=argparse.Namespace(a=[1])),
            "best": np.float64(0.5),
            "model": {"module.weight": torch.ones(2)},
        },
        source,
    )
    assert torch.equal(read_checkpoint(source)["weight"], torch.ones(2))


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + b"\0" * 40])
def test_a_file_that_is_no_checkpoint_is_said_to_be_one(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "junk.pth"
    source.write_bytes(content)
    with pytest.raises(WeightsInvalid, match=r"junk\.pth"):
        read_checkpoint(source)


def test_a_checkpoint_cut_short_is_refused_at_every_length(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.pth", tmp_path / "cut.pth"
    torch.save({"a": torch.arange(1000.0)}, whole)
    content = whole.read_bytes()
    for length in range(0, len(content) - 1, len(content) // 20):
        cut.write_bytes(content[:length])
        with pytest.raises(WeightsInvalid):
            read_checkpoint(cut)


def test_a_safetensors_file_cut_short_is_refused(weights: Weights) -> None:
    path = install_trained(weights, "ac-fpn", {"a": torch.ones(1000)}, source="test")
    content = path.read_bytes()
    for length in (0, 4, 20, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsInvalid):
            weights.path("ac-fpn")
        with pytest.raises(WeightsInvalid):
            import_checkpoint(weights, "ac-fpn", path)


def small_acfpn(path: Path, **instead: torch.Tensor) -> Path:
    """A file of a small AC-FPN that says its sizes, with one of the authors' aliases."""
    config = AcFpnConfig.tiny("audio-only")
    state = ACFPN(config).state_dict()
    state["audio_encoder.fc.weight"] = state["aclp.audio.fc.weight"].clone()
    told = {"config": CONFIG.dump_json(config).decode(), "fusion": "audio-only"}
    save_file(state | instead, path, told)
    return path


def test_import_folds_the_aliases_of_the_authors_and_keeps_what_the_file_says_of_itself(
    weights: Weights, tmp_path: Path
) -> None:
    path = import_checkpoint(weights, "ac-fpn", small_acfpn(tmp_path / "authors.safetensors"))
    state = read_checkpoint(path)
    assert "aclp.audio.fc.weight" in state
    assert not any(key.startswith("audio_encoder.") for key in state)
    assert load_acfpn(weights.path("ac-fpn")).config == AcFpnConfig.tiny("audio-only")
    other = small_acfpn(tmp_path / "other.safetensors", **{"audio_encoder.fc.weight": torch.zeros(1)})
    with pytest.raises(WeightsInvalid, match=r"two different tensors for aclp\.audio\.fc\.weight"):
        import_checkpoint(weights, "ac-fpn", other)
    assert set(read_checkpoint(path)) == set(state), "a failed import changed the installed file"


def test_import_refuses_tensors_that_are_no_acfpn(weights: Weights, tmp_path: Path) -> None:
    source = tmp_path / "junk.pth"
    torch.save({"a": torch.zeros(2)}, source)
    with pytest.raises(WeightsInvalid, match=r"neck\.lateral_convs\.3\.weight is missing"):
        import_checkpoint(weights, "ac-fpn", source)
    assert left_over(weights) == set()


def test_another_file_than_the_published_one_needs_trust(weights: Weights, tmp_path: Path) -> None:
    source = tmp_path / "another.bin"
    source.write_bytes(b"another")
    with pytest.raises(WeightsInvalid, match="wrong sha256"):
        import_checkpoint(weights, "asset", source)
    import_checkpoint(weights, "asset", source, trust=True)
    assert weights.lock("asset")["licence"] == "not stated"


def test_import_names_the_keys_that_do_not_fit(weights: Weights, tmp_path: Path) -> None:
    source = tmp_path / "wrong.pth"
    torch.save({"image_encoder.pos_embed": torch.ones(1), "strange": torch.ones(1)}, source)
    with pytest.raises(WeightsInvalid, match=r"missing \(.*1 unexpected \(strange\).*another shape"):
        import_checkpoint(weights, "sam-vit-b", source, trust=True)
    assert left_over(weights) == set()


def test_rules_split_in_order_and_rename() -> None:
    rules = Rules(drop=("^old",), split=((r"qkv", ("q", "k", "v")),), rename=(("^a", "b"),))
    state = rules.apply({"old": torch.ones(1), "a.qkv": torch.arange(6)})
    assert {key: value.tolist() for key, value in state.items()} == {
        "b.q": [0, 1],
        "b.k": [2, 3],
        "b.v": [4, 5],
    }


def test_shared_parameters_are_written_once_and_loaded_everywhere(tmp_path: Path) -> None:
    def build() -> torch.nn.Module:
        shared = torch.nn.Linear(2, 2)
        return torch.nn.ModuleDict({"one": shared, "two": shared, "own": torch.nn.Linear(2, 1)})

    network, path = build(), tmp_path / "shared.safetensors"
    write_safetensors(path, network.state_dict(), {"earshot": "test"})
    state = read_checkpoint(path)
    assert set(state) == {"one.weight", "one.bias", "own.weight", "own.bias"}
    other = build()
    load_into(other, state, "shared")
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))
    with pytest.raises(WeightsInvalid, match=r"1 missing \(own\.bias\)"):
        load_into(other, {key: value for key, value in state.items() if key != "own.bias"}, "shared")


def test_the_commands(weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = small_acfpn(tmp_path / "mine.safetensors")
    folder = ["--folder", str(weights.folder)]
    assert main([*folder, "verify"]) == 0
    assert "sam-tiny: ok" in capsys.readouterr().out  # the shipped family is always there
    assert main([*folder, "import", "ac-fpn", str(source)]) == 0
    assert main([*folder, "verify"]) == 0
    assert "ac-fpn: ok" in capsys.readouterr().out
    assert main([*folder, "list"]) == 0
    listing = capsys.readouterr().out
    assert re.search(r"ac-fpn +installed", listing)
    assert all(name in listing for name in WEIGHTS)
    assert main([*folder, "import", "ac-fpn", str(tmp_path / "absent.pth")]) == 1
    assert main([*folder, "fetch", "ac-fpn-tiny"]) == 1
    (weights.folder / "ac-fpn.safetensors").write_bytes(b"short")
    assert main([*folder, "verify", "ac-fpn"]) == 1
    out = capsys.readouterr()
    assert "Traceback" not in out.out + out.err


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]x", '{"asset": 3}', '{"asset": {}}', '{"asset": {"sha256": "0"}}', "\x00"],
)
def test_a_damaged_lock_file_is_named(weights: Weights, text: str) -> None:
    weights.folder.mkdir(parents=True, exist_ok=True)
    (weights.folder / LOCK).write_text(text)
    weights.file("asset").write_bytes(BODY)
    for asked in (weights.path, weights.identity):
        with pytest.raises(WeightsInvalid, match=rf"{LOCK} is damaged: .*\. Delete it and fetch again\.$"):
            asked("asset")


def test_a_folder_that_is_none_is_said_in_a_sentence(weights: Weights, tmp_path: Path) -> None:
    source = tmp_path / "asset.bin"
    source.write_bytes(BODY)
    inside = Weights(source / "folder", registry=weights.registry, tiny=tmp_path / "tiny")
    assert not inside.installed("asset")
    with pytest.raises(WeightsMissing, match="cannot be made: Not a directory"):
        import_checkpoint(inside, "asset", source)
    with pytest.raises(WeightsMissing, match="cannot be made: Not a directory"):
        fetch(inside, "asset")


def test_a_network_is_no_weight_to_import(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"name one of its weights: sam-vit-h, sam-vit-l, sam-vit-b\.$"):
        import_checkpoint(Weights(tmp_path), "sam", tmp_path / "any.pth")
