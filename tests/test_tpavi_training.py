"""TPAVI through the same trainer as AC-FPN: what it is fed, its losses, where it starts, runs that resume."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.checkpoints import read_safetensors, weights_of, write_safetensors
from models.errors import WeightsInvalid, WeightsMissing
from models.files import metadata
from models.pvt import Pvt, PvtConfig
from models.resnet import ResNet, ResNetConfig
from models.segments import resampled
from models.tpavi import TPAVI, TpaviConfig
from models.training import __main__ as command
from models.training import evaluate
from models.training.batches import Feed, batch_of, open_clips
from models.training.learners import TpaviLearner, learner_for
from models.training.losses import MATCHING_WEIGHT, ms3_loss, ms3_matching, s4_loss, s4_matching
from models.training.recipes import Recipe, tpavi_ms3, tpavi_s4
from models.training.runs import load_trained, network_in
from models.training.starts import Files, start_tpavi
from models.training.step import LOSSES, factor, optimizer_for, update
from models.training.train import Setup, Training
from models.vggish import RATE, Vggish, VggishConfig, examples
from models.weights import Weights, record

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def heard_with(tmp_path_factory) -> Path:
    """A small VGGish, random but for its last layer, which is made to be awake."""
    torch.manual_seed(0)
    network = Vggish(VggishConfig.tiny())
    torch.nn.init.uniform_(network.embeddings[4].bias, 0, 1)  # type: ignore[arg-type]
    path = tmp_path_factory.mktemp("vggish") / "vggish.safetensors"
    write_safetensors(path, weights_of(network), {})
    return path


def least(**changes) -> Recipe:
    """The recipe of MS3 with the smallest network: a step takes milliseconds."""
    small = {"network": TpaviConfig.tiny(), "size": 32, "batch": 2, "clips": 8, "epochs": 1, "rate": 1e-3}
    return replace(tpavi_ms3(), **(small | {"name": "least", "image_start": "random"} | changes))


def setup(out: Path, audio: Path, **changes) -> Setup:
    told = {"data": "synth", "out": out, "device": "cpu", "judged": 2, "files": Files(audio=audio)}
    return Setup(**(told | changes))


def learner_of(recipe: Recipe, audio: Path) -> TpaviLearner:
    torch.manual_seed(0)
    learner = learner_for(recipe, Files(audio=audio), Weights())
    assert isinstance(learner, TpaviLearner)
    return learner.train()


def equal(one: Path, other: Path) -> bool:
    ours, theirs = read_safetensors(one), read_safetensors(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


# Recipes and inputs


def test_the_published_constants() -> None:
    """SPEC 7.3."""
    s4, ms3 = tpavi_s4(), tpavi_ms3()
    for recipe in (s4, ms3):
        assert (recipe.rate, recipe.decay, recipe.batch, recipe.seed, recipe.size) == (1e-4, 0, 4, 123, 224)
        assert [factor(recipe, step, 100) for step in (0, 99)] == [1, 1]
    assert (s4.epochs, s4.loss, ms3.epochs, ms3.loss) == (15, "first-frame", 30, "every-frame-matching")
    assert tpavi_s4("resnet50").network == TpaviConfig.of("resnet50")


def test_a_batch_is_what_the_published_loader_makes() -> None:
    recipe = least()
    clip = open_clips("synth", recipe, "train", 1)[0]
    batch = batch_of([clip, clip], recipe)
    assert batch.images.shape == (10, 3, 32, 32)
    assert batch.sound.shape == (10, 1, 96, 64)
    assert torch.equal(batch.sound[5:], examples(resampled(clip.audio, clip.rate, RATE), 5))
    grey = replace(clip, frames=np.full_like(clip.frames, 255))
    white = batch_of([grey], recipe).images[0, :, 0, 0]
    torch.testing.assert_close(
        white, (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    )


# A step


def test_losses_are_the_published_ones(heard_with: Path) -> None:
    learner = learner_of(least(), heard_with)
    batch = Feed("synth", least())[0]
    with torch.no_grad():
        answer = learner.eval()(batch.images, batch.sound)
    assert answer.matched is not None
    logits, truth, matched = answer.logits, batch.truth, answer.matched
    everyone = torch.ones(len(truth), dtype=torch.bool)
    found = {name: LOSSES[name](answer, truth, everyone) for name in LOSSES}
    assert found["first-frame"] == s4_loss(logits, truth)
    assert found["every-frame-matching"] == ms3_loss(logits, truth) + MATCHING_WEIGHT * ms3_matching(
        logits, *matched
    )
    assert found["first-frame-matching"] == s4_loss(logits, truth) + MATCHING_WEIGHT * s4_matching(
        logits, *matched
    )
    assert found["every-frame-matching"] > found["every-frame"] > 0


@pytest.mark.parametrize("backbone", ["resnet50", "pvt-v2-b5"])
def test_a_few_steps_reduce_the_loss(heard_with: Path, backbone) -> None:
    recipe = least(network=TpaviConfig.tiny(backbone))
    learner = learner_of(recipe, heard_with)
    optimizer, batch = optimizer_for(learner, recipe), Feed("synth", recipe)[0]
    before = {key: tensor.clone() for key, tensor in learner.state_dict().items()}
    losses = [update(learner, optimizer, batch, recipe).loss for _ in range(12)]
    assert losses[-1] < 0.8 * losses[0]
    changed = {key for key, tensor in learner.state_dict().items() if not torch.equal(tensor, before[key])}
    assert not [key for key in changed if key.startswith("ears.")], "VGGish is never trained"
    unused = ("layer3_2", "layer4_2", "path4.resConfUnit1")
    assert not [key for key in changed if any(name in key for name in unused)]
    assert {"network.tpavi_b1.phi.weight", "network.conv1.conv2d_list.3.weight"} <= changed


# Where it starts


def test_an_image_classifier_of_torchvision_fills_both_branches(tmp_path: Path) -> None:
    """SPEC 7.2. Old files of torchvision count no batches."""
    torch.manual_seed(1)
    config = ResNetConfig.tiny()
    state = {
        key.replace("_1.", ".", 1): tensor
        for key, tensor in ResNet(config).state_dict().items()
        if "_2." not in key.split(".", 1)[0] + "." and not key.endswith("num_batches_tracked")
    }
    state |= {"fc.weight": torch.zeros(3, 256), "fc.bias": torch.zeros(3)}
    torch.save(state, tmp_path / "resnet50.pth")
    network = TPAVI(TpaviConfig.tiny("resnet50"))
    recipe = least(network=network.config, image_start="resnet50")
    start_tpavi(network, recipe, Files(image=tmp_path / "resnet50.pth"), Weights())
    for branch in ("layer3_1", "layer3_2"):
        ours = network.resnet.get_submodule(branch).state_dict()["0.conv1.weight"]
        assert torch.equal(ours, state["layer3.0.conv1.weight"])
    del state["layer2.0.conv1.weight"]
    torch.save(state, tmp_path / "resnet50.pth")
    with pytest.raises(WeightsInvalid, match=r"another architecture: layer2\.0\.conv1\.weight"):
        start_tpavi(network, recipe, Files(image=tmp_path / "resnet50.pth"), Weights())


def test_pvt_starts_from_its_classifier(tmp_path: Path) -> None:
    torch.manual_seed(1)
    state = Pvt(PvtConfig.tiny()).state_dict() | {"head.weight": torch.zeros(3, 64)}
    torch.save(state, tmp_path / "pvt.pth")
    network = TPAVI(TpaviConfig.tiny())
    start_tpavi(network, least(image_start="pvt-v2-b5"), Files(image=tmp_path / "pvt.pth"), Weights())
    assert torch.equal(network.encoder_backbone.norm4.weight, state["norm4.weight"])
    assert torch.equal(network.encoder_backbone.block2[0].attn.q.weight, state["block2.0.attn.q.weight"])


def test_what_is_missing_says_so(tmp_path: Path) -> None:
    weights = Weights(tmp_path, tiny=tmp_path)
    with pytest.raises(WeightsMissing, match="starts from pvt-v2-b5: name its file with --image-weights"):
        learner_for(least(image_start="pvt-v2-b5"), Files(), weights)
    with pytest.raises(WeightsMissing, match="python -m service weights fetch vggish"):
        learner_for(least(), Files(), weights)


# Runs


PROGRAM = """
import sys, torch
from pathlib import Path
from tests.test_tpavi_training import Training, least, setup
torch.set_num_threads(1)
Training(least(), setup(Path(sys.argv[1]), Path(sys.argv[2]), save_every=1))()
"""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, heard_with: Path) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    Training(least(), setup(out, heard_with, save_every=1))()
    return out


def test_killed_and_resumed_it_ends_with_the_same_weights(
    unbroken: Path, heard_with: Path, tmp_path: Path
) -> None:
    """kill -9; blocks are skipped at random, so that the state of the random numbers counts too."""
    out = tmp_path / "killed"
    program = [sys.executable, "-c", PROGRAM, str(out), str(heard_with)]
    process = subprocess.Popen(program, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob("state-*")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "weights.safetensors").exists(), "it was killed too late to prove anything"
    Training(least(), setup(out, heard_with, save_every=1, resume=True))()
    assert equal(out / "weights.safetensors", unbroken / "weights.safetensors")
    last = "state-00000004/optimizer.safetensors"
    assert equal(out / last, unbroken / last)


def test_a_run_s_weights_say_what_they_are(unbroken: Path) -> None:
    path = unbroken / "weights.safetensors"
    told = metadata(path)
    assert (told["earshot"], told["recipe_sha256"]) == ("tpavi", least().digest)
    assert network_in(path) == "tpavi"
    network = load_trained(path)
    assert isinstance(network, TPAVI)
    assert network.config == least().network
    assert not [key for key in read_safetensors(path) if key.startswith("ears")]
    assert (unbroken / "curves.png").is_file() and (unbroken / "samples.png").is_file()


def test_evaluate_takes_a_run_s_weights(unbroken: Path, heard_with: Path, tmp_path: Path, capsys) -> None:
    """The strategy is judged with the file's TPAVI, and hears with the VGGish that is installed."""
    folder = tmp_path / "weights"
    folder.mkdir()
    installed = Weights(folder).file("vggish")
    installed.write_bytes(heard_with.read_bytes())
    record(folder, "vggish", installed, source="this test", source_sha256="", licence="Apache-2.0")
    ask = ["tpavi", "--data", "synth", "--clips", "2", "--weights", str(unbroken / "weights.safetensors")]
    code = evaluate.main([*ask, "--weights-dir", str(folder), "--device", "cpu", "--format", "json"])
    said = capsys.readouterr()
    assert code == 0, said.err
    (line,) = json.loads(said.out)["lines"]
    assert line["weights"]["tpavi"]["id"] == "weights.safetensors"
    assert line["weights"]["vggish"]["id"] == "vggish"


def test_the_command_trains_it(heard_with: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(command, "RECIPES", {"tpavi_s4": lambda: least(loss="first-frame")})
    ask = ["train", "tpavi_s4", "--data", "synth", "--out", str(tmp_path / "run"), "--steps", "1"]
    options = ["--device", "cpu", "--judged", "1", "--audio-weights", str(heard_with)]
    assert command.main([*ask, *options]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "run/weights.safetensors")
