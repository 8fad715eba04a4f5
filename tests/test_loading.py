"""What a worker loads: what is there is ready, what is missing says what to do, nothing is fatal."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from models import sam
from models.errors import WeightsMissing
from models.media import Window
from models.stages import measured, stage
from models.strategies import STRATEGIES, FrameMasks
from models.strategies.options import NoPromptOptions
from models.suppliers import PROMPTS_PER_BATCH
from models.weights import TINY_FOLDER
from service.loading import Loaded, Ready, refusal_of, warm
from service.settings import Settings
from service.telemetry import Metrics
from tests.tiny_networks import tiny_networks


def loaded(tmp_path: Path, **fields: object) -> Loaded:
    settings = Settings.model_validate(
        {"weights_dir": tmp_path, "registry": "tests.fault_strategies", **fields}
    )
    one = Loaded(settings, lambda name, size: None)
    one.load()
    return one


def test_all_means_every_strategy_of_the_table(tmp_path: Path) -> None:
    one = loaded(tmp_path, strategies="all")
    statement = one.statement()["strategies"]
    assert statement.keys() == one.table.keys()
    assert statement["sleep"] == {"ready": True, "reason": None}


def test_a_choice_loads_no_more(tmp_path: Path) -> None:
    assert loaded(tmp_path, strategies="sleep,full-mask").statement()["strategies"].keys() == {
        "sleep",
        "full-mask",
    }


def test_missing_weights_name_the_command_and_stop_nothing(tmp_path: Path) -> None:
    one = Loaded(Settings(weights_dir=tmp_path, strategies=("ac-fpn", "full-mask")), lambda name, size: None)
    one.weights.tiny = tmp_path / "none"  # else the shipped weights would serve
    one.load()
    statement = one.statement()["strategies"]
    assert statement["full-mask"]["ready"]
    assert not statement["ac-fpn"]["ready"]
    assert "python -m service weights" in statement["ac-fpn"]["reason"]
    assert statement["ac-fpn"]["code"] == "weights_missing"
    assert one.networks is None


def test_all_that_a_strategy_lacks_is_fetched_by_one_command(tmp_path: Path) -> None:
    one = Loaded(Settings(weights_dir=tmp_path, strategies=("box-prompt",)), lambda name, size: None)
    one.weights.tiny = tmp_path / "none"
    one.load()
    assert (
        "`python -m service weights fetch clap-630k-audioset-best audioclip grounding-dino-swin-b sam-vit-h`."
        in one.refusals["box-prompt"].detail
    )
    assert one.refusals["box-prompt"].detail.endswith(
        "Then restart the worker, which looks for weights when it starts."
    )
    yours = one.weights.missing(["tpavi", "vggish"])
    assert "`python -m service weights fetch vggish && python -m service weights import tpavi FILE`" in yours


def test_while_it_loads_it_says_what_is_to_come_and_first_what_is_missing(tmp_path: Path) -> None:
    names = ("full-mask", "ac-fpn")
    one = Loaded(Settings(weights_dir=tmp_path, strategies=names), lambda name, size: None)
    one.weights.tiny = tmp_path / "none"
    told: list[tuple[list[str], list[str]]] = []
    one.load(lambda: told.append(([*one.statement()["strategies"]], [*one.statement()["loading"]])))
    assert told == [(["ac-fpn"], ["full-mask"]), (["full-mask", "ac-fpn"], [])]


def test_damaged_weights_are_not_said_to_be_missing(tmp_path: Path) -> None:
    one = Loaded(Settings(weights_dir=tmp_path, strategies=("random-sam",)), lambda name, size: None)
    one.weights.tiny = tmp_path / "tiny"
    shutil.copytree(TINY_FOLDER, one.weights.tiny)
    with (one.weights.tiny / "sam.safetensors").open("r+b") as file:
        file.truncate(1000)
    one.load()
    said = one.statement()["strategies"]["random-sam"]
    assert said["code"] == "weights_invalid"
    assert "is not the file it was" in said["reason"]


def test_a_reason_names_no_folder_of_the_machine() -> None:
    error = PermissionError(13, "Permission denied", "/srv/weights/sam.safetensors")
    assert refusal_of(error).detail == "[Errno 13] Permission denied: 'sam.safetensors'"
    sentence = "Fetch https://host/a/b/c.pt with python -m service weights fetch sam; see models/tiny/sam."
    assert refusal_of(WeightsMissing(sentence)).detail == sentence


def test_a_heartbeat_may_come_while_strategies_are_loaded(tmp_path: Path) -> None:
    class Growing(dict[str, Ready]):
        def __iter__(self) -> Iterator[str]:
            for name in super().__iter__():
                self[f"after {name}"] = self[name]
                yield name

    one = loaded(tmp_path, strategies="full-mask")
    one.ready = Growing(one.ready)
    assert one.statement()["strategies"]["full-mask"]["ready"]


def test_an_unknown_strategy_is_named_with_those_that_exist(tmp_path: Path) -> None:
    one = loaded(tmp_path, strategies="slepp")
    assert "sleep" in one.refusals["slepp"].detail


def test_strategies_without_networks_need_no_torch() -> None:
    program = (
        "import sys; from service.settings import Settings; from service.worker import Worker;"
        "from service.loading import Loaded;"
        "one = Loaded(Settings(strategies=('full-mask',)), print); one.load();"
        "assert one.ready.keys() == {'full-mask'}; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


def test_no_prompt_is_warmed_with_one_batch_of_points() -> None:
    """Its whole grid would be sixteen of the same calls."""
    asked: list[int] = []

    def segmenter(window: Window, options: NoPromptOptions) -> Iterator[FrameMasks]:
        asked.append(options.points_per_side**2 * len(window.timestamps))
        return iter(())

    warm(STRATEGIES["no-prompt"], segmenter)
    assert asked == [PROMPTS_PER_BATCH]


def test_stages_are_summed_where_somebody_measures() -> None:
    waited: list[int] = []
    with stage("detect"):
        pass
    with measured() as seconds:
        for _ in range(2):
            with stage("detect"):
                pass
        with measured(lambda: waited.append(1)) as inner, stage("mask_decode"):
            pass
    assert waited == [1], "the device has finished before the stage is over"
    assert seconds.keys() == {"detect"}
    assert inner.keys() == {"mask_decode"}
    assert seconds["detect"] > 0


def test_the_metrics_show_what_the_embedding_cache_found(tmp_path: Path) -> None:
    one, metrics = loaded(tmp_path, strategies="full-mask"), Metrics()
    metrics.embedding_cache.read = one.lookups
    assert b"avs_embedding_cache_total{" not in metrics.expose()
    network = sam.Sam(sam.build("sam-tiny"), identity="random")
    one.networks, one.models = {"sam": network}, {"sam": {}}
    frames = np.zeros((1, 32, 32, 3), np.uint8)
    for _ in range(3):
        network.embed(frames)
    text = metrics.expose().decode()
    assert 'avs_embedding_cache_total{model="sam",result="hit"} 2.0' in text
    assert 'avs_embedding_cache_total{model="sam",result="miss"} 1.0' in text


def test_the_supplier_is_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which ends in a sentence here, where the original packages are not."""
    monkeypatch.setenv("EARSHOT_SUPPLIER", "official")
    tiny_networks(tmp_path)
    one = Loaded(Settings(weights_dir=tmp_path, strategies=("random-sam",)), lambda name, size: None)
    one.weights.tiny = tmp_path
    one.load()
    assert "make .venv-official/ready" in one.refusals["random-sam"].detail


def test_a_result_says_whose_code_ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    networks = tiny_networks(tmp_path)
    package = ModuleType("models.official")
    vars(package)["load_sam"] = lambda weights, device: networks["sam"]
    monkeypatch.setitem(sys.modules, "models.official", package)
    for supplier in ("official", "transformers"):
        one = Loaded(
            Settings(weights_dir=tmp_path / "none", strategies=("random-sam",), supplier=supplier),
            lambda name, size: None,
        )
        one.weights.tiny = tmp_path
        one.load()
        assert one.ready["random-sam"].models["sam"].get("supplier", "transformers") == supplier
