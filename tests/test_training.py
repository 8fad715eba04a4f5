"""The trainer: recipes, steps, order, and runs that survive being killed and fail with a sentence."""

from __future__ import annotations

import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from models.acfpn import ACFPN, AcFpnConfig
from models.audioclip import AudioCLIPConfig
from models.audioclip.audio import AudioConfig
from models.audioclip.image import ImageConfig
from models.audioclip.text import TextConfig
from models.checkpoints import read_safetensors, weights_of, write_safetensors
from models.datasets.kinds import CLASS_NAMES
from models.datasets.layouts import Order, write_layout
from models.errors import TrainingDiverged, WeightsInvalid
from models.files import metadata
from models.tpavi import TPAVI
from models.training import __main__ as command
from models.training import tiny
from models.training.batches import Batch, Feed, Share, batch_of
from models.training.learners import AcFpnLearner, Answer
from models.training.recipes import RECIPES, Recipe, acfpn_ms3, acfpn_s4, tiny_acfpn
from models.training.runs import Log, load_trained
from models.training.starts import AUDIO, IMAGE
from models.training.step import LOSSES, factor, optimizer_for, update
from models.training.train import Setup, Training, judged

ROOT = Path(__file__).resolve().parent.parent
LEAST = AcFpnConfig(
    AudioCLIPConfig(
        embed=16,
        image=ImageConfig(resolution=32, layers=(1, 1, 1, 1), width=2),
        text=TextConfig(vocabulary=8, width=8, heads=1, layers=1),
        audio=AudioConfig(n_fft=64, hop=2205, window=64, layers=(1, 1, 1, 1), planes=2, groups=1),
    ),
    neck=8,
    head=8,
    groups=2,
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums of several threads come in the same order too, but one is faster for networks this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def least(**changes) -> Recipe:
    """The tiny recipe with the smallest network there can be: a step takes milliseconds."""
    small = {"network": LEAST, "size": 32, "batch": 2, "clips": 12, "epochs": 1, "validate_every": 6}
    small |= {"image_start": "random", "audio_start": "random"}
    return replace(tiny_acfpn(), name="least", **(small | changes))


def setup(out: Path, **changes) -> Setup:
    return Setup(**({"data": "synth", "out": out, "device": "cpu", "judged": 2} | changes))


def weights(path: Path) -> dict[str, torch.Tensor]:
    return read_safetensors(path)


def equal(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory) -> Path:
    """A run from its beginning to its end."""
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    Training(least(), setup(out, save_every=2))()
    return out


# Recipes


def test_the_paper_s_constants() -> None:
    """SPEC 2.2 and 2.3, number by number."""
    s4, ms3 = acfpn_s4(), acfpn_ms3()
    for recipe in (s4, ms3):
        assert (recipe.rate, recipe.backbone, recipe.decay, recipe.batch, recipe.seed) == (
            5e-5,
            0.1,
            0,
            4,
            123,
        )
        assert (recipe.size, recipe.seconds, recipe.audio_scale) == (224, 5, "paper")
        assert (recipe.cosine, recipe.warmup, recipe.clip, recipe.negatives) == (False, 0, None, 0)
        assert recipe.audio == "left-out"
        assert [factor(recipe, step, 100) for step in (0, 50, 99)] == [1, 1, 1]
    assert (s4.epochs, s4.loss, ms3.epochs, ms3.loss) == (70, "first-frame", 200, "every-frame")


def test_every_recipe_is_another_and_builds_its_network() -> None:
    made = {name: recipe() for name, recipe in RECIPES.items()}
    assert len({recipe.digest for recipe in made.values()}) == len(made)
    with torch.device("meta"):
        for network in {recipe.network for recipe in made.values()}:
            ACFPN(network) if isinstance(network, AcFpnConfig) else TPAVI(network)


def test_a_random_audio_tower_is_trained() -> None:
    assert RECIPES["acfpn_s4_audio_random"]().audio == "trained"


def test_a_changed_recipe_has_another_digest() -> None:
    assert least().digest != least(rate=1e-3).digest
    assert least().digest == least().digest


# A step


def groups(**changes) -> tuple[ACFPN, dict[int, float]]:
    network = ACFPN(LEAST)
    recipe = replace(acfpn_s4(), network=LEAST, **changes)
    learner = AcFpnLearner(network, recipe)
    rates = {id(p): g["lr"] for g in optimizer_for(learner, recipe).param_groups for p in g["params"]}
    return network, rates


def test_audio_is_left_out_and_the_backbone_learns_at_a_tenth() -> None:
    network, rates = groups()
    for name, parameter in network.named_parameters():
        expected = None if name.startswith("aclp.audio.") else 5e-6 if name.startswith("aclp.") else 5e-5
        assert rates.get(id(parameter)) == pytest.approx(expected), name
        assert parameter.requires_grad, "left out, and yet computed: as published"


def test_audio_may_learn_too() -> None:
    network, rates = groups(audio="trained")
    assert rates[id(network.aclp.audio.conv1.weight)] == pytest.approx(5e-6)


def test_what_esresnext_lacks_learns_at_the_full_rate() -> None:
    network, rates = groups(audio_start="esresnext")
    assert rates[id(network.aclp.audio.fc.weight)] == pytest.approx(5e-5)
    assert id(network.aclp.audio.conv1.weight) not in rates


@pytest.mark.parametrize(("audio", "drifts"), [("left-out", True), ("frozen", False), ("trained", True)])
def test_what_frozen_means(audio: str, drifts: bool) -> None:
    """The paper's frozen tower keeps its weights and loses its statistics; a truly frozen one keeps both."""
    recipe = least(audio=audio, rate=1e-2, warmup=0)
    torch.manual_seed(0)
    network = ACFPN(recipe.network)
    learner = AcFpnLearner(network, recipe).train()
    before = {key: tensor.clone() for key, tensor in network.aclp.audio.state_dict().items()}
    update(learner, optimizer_for(learner, recipe), Feed("synth", recipe)[0], recipe)
    after = network.aclp.audio.state_dict()
    assert torch.equal(before["conv1.weight"], after["conv1.weight"]) == (audio != "trained")
    assert torch.equal(before["bn1.running_mean"], after["bn1.running_mean"]) != drifts


def test_gradients_of_a_left_out_tower_do_not_pile_up() -> None:
    recipe = least(audio="left-out", rate=0.0, clip=None, warmup=0)
    network = ACFPN(recipe.network)
    learner, batch = AcFpnLearner(network, recipe).train(), Feed("synth", recipe)[0]
    optimizer = optimizer_for(learner, recipe)
    norms = []
    for _ in range(3):
        update(learner, optimizer, batch, recipe)
        gradient = network.aclp.audio.conv1.weight.grad
        assert gradient is not None
        norms.append(gradient.norm().item())
    assert norms[2] == pytest.approx(norms[0], rel=1e-3)


def loss(name, logits, truth, judged) -> torch.Tensor:
    return LOSSES[name](Answer(logits), truth, judged)


def test_losses_judge_only_what_is_annotated() -> None:
    logits, truth = torch.randn(10, 8, 8), (torch.rand(10, 8, 8) > 0.5).float()
    judged = torch.tensor([True, False, False, False, False] * 2)
    other = torch.where(judged[:, None, None], logits, -logits)
    for name in ("first-frame", "every-frame", "overlap"):
        assert loss(name, logits, truth, judged) == loss(name, other, truth, judged), name
    assert loss("every-frame", logits, truth, judged) == loss("first-frame", logits, truth, judged)


def test_overlap_counts_a_small_thing_as_much_as_a_large_one() -> None:
    truth = torch.zeros(2, 16, 16)
    truth[0, :2, :2], truth[1, :8, :8] = 1, 1
    nothing, everyone = torch.full((2, 16, 16), -20.0), torch.ones(2, dtype=torch.bool)
    right = truth * 40 - 20
    assert loss("overlap", right, truth, everyone) < 0.2
    missed = [loss("overlap", nothing[i : i + 1], truth[i : i + 1], everyone[:1]) for i in (0, 1)]
    entropies = [20 * truth[i].mean().item() for i in (0, 1)]
    assert missed[0].item() - entropies[0] == pytest.approx(missed[1].item() - entropies[1], abs=1e-3)


def test_a_loss_that_is_no_number_moves_nothing() -> None:
    recipe = least()
    network = ACFPN(recipe.network)
    learner = AcFpnLearner(network, recipe).train()
    optimizer = optimizer_for(learner, recipe)
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    batch = Feed("synth", recipe)[0]
    with pytest.raises(TrainingDiverged, match="loss is nan"):
        update(learner, optimizer, replace(batch, images=batch.images * math.nan), recipe)
    assert all(torch.equal(parameter, before[name]) for name, parameter in network.named_parameters())


def test_half_precision_leaves_the_sound_whole() -> None:
    """Decibels of quiet bins do not survive bf16: under autocast the audio features stay what they were."""
    recipe = least()
    network = ACFPN(recipe.network).eval()
    batch, heard = Feed("synth", recipe)[0], []
    network.aclp.audio.register_forward_hook(lambda _module, _inputs, features: heard.append(features))
    learner = AcFpnLearner(network, recipe).eval()
    with torch.no_grad():
        learner(batch.images, batch.sound)
        with torch.autocast("cpu", torch.bfloat16):
            logits = learner(batch.images, batch.sound).logits
    assert torch.equal(heard[0], heard[1])
    assert logits.dtype == torch.float32


# Order


def test_an_epoch_shows_every_clip_once() -> None:
    feed = Feed("synth", least(clips=7, epochs=3))
    for epoch in range(2):
        steps = range(epoch * feed.steps_per_epoch, (epoch + 1) * feed.steps_per_epoch)
        assert sorted(number for step in steps for number in feed.numbers(step)) == list(range(7))
    assert feed.numbers(0) != feed.numbers(feed.steps_per_epoch)


def test_devices_share_a_step_and_none_stays_idle() -> None:
    recipe = least(clips=7, batch=3)
    for step in range(3):
        whole = Feed("synth", recipe).numbers(step)
        feeds = [Feed("synth", recipe, Share(rank, 2)) for rank in (0, 1)]
        shares = [feed.numbers(step)[feed.share.number :: 2] for feed in feeds]
        assert all(shares)
        assert set(whole) <= set(shares[0] + shares[1])


def test_workers_make_the_very_same_batches() -> None:
    recipe = least(negatives=0.5)
    here, there = Feed("synth", recipe), Feed("synth", recipe, workers=1)
    for one, other in zip(here.batches(1, 3), there.batches(1, 3), strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.sound, other.sound)


def test_a_wrong_sound_has_an_empty_truth() -> None:
    feed = Feed("synth", least(negatives=1.0, clips=6, batch=6))
    assert {feed.sound(0, number) for number in range(6)} == {"noise", "offscreen"}
    assert not feed[0].truth.any()
    assert Feed("synth", least(negatives=0.0, clips=6, batch=6))[0].truth.any()


def test_hints_tell_what_is_in_view_and_what_of_it_sounds() -> None:
    feed = Feed("synth", least(negatives=0.0, size=96, batch=1))
    clip, hints = feed.clips[feed.numbers(0)[0]], feed[0].hints
    assert hints is not None and clip.instances is not None
    in_view = {CLASS_NAMES.index(thing) for thing in clip.things}
    assert {int(n) for n in hints.known[0].nonzero()} == in_view
    assert set(hints.seen.unique().tolist()) <= {0} | {n + 1 for n in in_view}
    assert np.array_equal(hints.seen.numpy() != 0, clip.instances != 0)
    for frame, labels in enumerate(clip.truth):
        assert {int(n) + 1 for n in hints.heard[frame].nonzero()} == set(np.unique(labels)) - {0}


# Runs


def test_a_run_leaves_what_it_promises(unbroken: Path) -> None:
    told = metadata(unbroken / "weights.safetensors")
    assert told["recipe_sha256"] == least().digest
    assert json.loads(told["recipe"])["name"] == "least"
    network = load_trained(unbroken / "weights.safetensors")
    assert network.config == LEAST
    for name in ("curves.png", "samples.png"):
        with Image.open(unbroken / name) as picture:
            assert np.asarray(picture).std() > 10, f"{name} is blank"
    assert [row["step"] for row in Log(unbroken / "log.csv", 6).rows()] == [str(i) for i in range(1, 7)]
    assert list((unbroken / "tensorboard").glob("events*"))
    assert [path.name for path in unbroken.glob("state-*")] == ["state-00000006"]
    assert 0 <= json.loads((unbroken / "test.json").read_text())["mIoU"] <= 1


PROGRAM = """
import sys, torch
from pathlib import Path
from tests.test_training import Training, least, setup
torch.set_num_threads(1)
Training(least(), setup(Path(sys.argv[1]), save_every=2))()
"""


def test_killed_and_resumed_it_ends_with_the_same_weights(unbroken: Path, tmp_path: Path) -> None:
    """kill -9, in the middle of a run, of a process of its own."""
    out = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(out)], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(out.glob("state-*")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "weights.safetensors").exists(), "it was killed too late to prove anything"
    Training(least(), setup(out, save_every=2, resume=True))()
    assert equal(out / "weights.safetensors", unbroken / "weights.safetensors")
    assert equal(
        out / "state-00000006/optimizer.safetensors", unbroken / "state-00000006/optimizer.safetensors"
    )
    assert [row["step"] for row in Log(out / "log.csv", 6).rows()] == [str(i) for i in range(1, 7)]


def test_another_seed_gives_other_weights(unbroken: Path, tmp_path: Path) -> None:
    """Or the test above would prove nothing."""
    Training(least(seed=1), setup(tmp_path / "other"))()
    assert not equal(tmp_path / "other/weights.safetensors", unbroken / "weights.safetensors")


def test_a_state_that_is_not_whole_does_not_count(unbroken: Path, tmp_path: Path) -> None:
    """What a kill leaves of a state being written has a hidden name, and the next one takes its place."""
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    torn = out / ".state-00000008"
    torn.mkdir()
    (torn / "weights.safetensors").write_bytes(b"half")
    assert Training(least(), setup(out, resume=True))().is_file()


def test_a_diverging_run_keeps_its_last_good_state(tmp_path: Path) -> None:
    out = tmp_path / "run"
    training = Training(least(), setup(out, save_every=1))
    good = training.feed.__class__.__getitem__

    def spoilt(feed: Feed, step: int) -> Batch:
        batch = good(feed, step)
        return replace(batch, images=batch.images * math.inf) if step == 3 else batch

    training.feed.__class__ = type("Spoilt", (Feed,), {"__getitem__": spoilt})
    with pytest.raises(
        TrainingDiverged, match=r"stopped at step 4 of 6.*last good state is .*state-00000003"
    ):
        training()
    kept = weights(out / "state-00000003/weights.safetensors")
    assert all(tensor.isfinite().all() for tensor in kept.values())


def test_two_devices_train_one_network(tmp_path: Path) -> None:
    """DDP on two processes of this machine, by torchrun."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.replace("save_every=2", "devices=2, save_every=2"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    out = tmp_path / "run"
    done = subprocess.run(
        [*torchrun, str(program), str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert load_trained(out / "weights.safetensors").config == LEAST


# Bad input: one sentence that names the file, exit code 2, and nothing half-written


@pytest.fixture(scope="module")
def avsbench(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / "ms3"
    write_layout(out, Order("ms3", clips=4, size=64, videos=False))
    return out


@pytest.fixture
def recipes(monkeypatch) -> None:
    made = {"least": least, "other": lambda: least(rate=1e-4), "plain": lambda: least(hints=0.0)}
    monkeypatch.setattr(command, "RECIPES", made)


def train(*arguments: object, recipe: str = "least") -> int:
    return command.main(["train", recipe, "--device", "cpu", "--judged", "2", *map(str, arguments)])


def spoil(data: Path, pattern: str, content: bytes | None) -> Path:
    """Break every file that fits; the first of them."""
    paths = sorted(data.rglob(pattern))
    for path in paths:
        path.unlink() if content is None else path.write_bytes(content)
    return paths[0]


@pytest.mark.usefixtures("recipes")
def test_it_trains_on_a_folder_of_avsbench(avsbench: Path, tmp_path: Path, capsys) -> None:
    assert train("--data", avsbench, "--out", tmp_path / "run", "--steps", 1, recipe="plain") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "run/weights.safetensors")


@pytest.mark.usefixtures("recipes")
@pytest.mark.parametrize(
    ("pattern", "content", "said"),
    [
        ("*.mp4_1.png", None, "missing"),
        ("*.mp4_1.png", b"\x89PNG\r\n\x1a\nhalf", "not a readable picture"),
        ("*.wav", b"RIFFhalf", "not a readable sound file"),
        ("*.wav", None, "missing"),
        ("ms3_meta_data.csv", b"video_id,split\nx,test\n", "no clip in the split 'train'"),
        ("ms3_meta_data.csv", None, "none of"),
    ],
)
def test_a_broken_data_set(avsbench, tmp_path, capsys, pattern, content, said) -> None:
    data = tmp_path / "data"
    shutil.copytree(avsbench, data)
    spoil(data, pattern, content)
    assert train("--data", data, "--out", tmp_path / "run", "--steps", 1, recipe="plain") == 2
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in sentence
    assert str(data) in sentence


@pytest.mark.usefixtures("recipes")
def test_hints_are_of_synthavs_alone(avsbench: Path, tmp_path: Path, capsys) -> None:
    assert train("--data", avsbench, "--out", tmp_path / "run") == 2
    assert "choose --data synth" in capsys.readouterr().err


@pytest.mark.usefixtures("recipes")
def test_bad_arguments(tmp_path: Path, capsys) -> None:
    assert train("--data", tmp_path / "nowhere", "--out", tmp_path / "run") == 2
    assert "nowhere is not a folder" in capsys.readouterr().err
    assert train("--data", "synth", "--out", tmp_path / "run", "--init", tmp_path / "no.safetensors") == 2
    assert "no.safetensors" in capsys.readouterr().err
    other = tmp_path / "other.safetensors"
    write_safetensors(other, {"conv.weight": torch.zeros(1)}, {})
    assert train("--data", "synth", "--out", tmp_path / "run", "--init", other) == 2
    assert "other.safetensors is a checkpoint of another architecture: conv.weight" in capsys.readouterr().err
    assert (
        command.main(["tiny", "sam", "--batch", "4", "--init", str(other), "--out", str(tmp_path / "run")])
        == 2
    )
    assert "sam learns by a plan, which has no --batch, --init." in capsys.readouterr().err
    for option, value in (("--threads", "-1"), ("--devices", "0"), ("--workers", "-1")):
        with pytest.raises(SystemExit, match="2"):
            train("--data", "synth", "--out", tmp_path / "run", option, value)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("recipes")
def test_a_folder_that_holds_something_else(unbroken: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    shutil.copytree(unbroken, out)
    assert train("--data", "synth", "--out", out) == 2
    assert "holds a run already: add --resume" in capsys.readouterr().err
    assert train("--data", "synth", "--out", out, "--resume", recipe="other") == 2
    assert "differs in recipe, sha256" in capsys.readouterr().err
    assert equal(out / "weights.safetensors", unbroken / "weights.safetensors")
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers/thesis.txt").write_text("mine")
    assert train("--data", "synth", "--out", tmp_path / "papers") == 2
    assert "is not empty and holds no run" in capsys.readouterr().err


@pytest.mark.usefixtures("recipes")
def test_a_full_disk(tmp_path: Path, capsys) -> None:
    """A limit on the size of files stands in for it: both fail while the weights are being written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal_before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        assert train("--data", "synth", "--out", tmp_path / "run", "--save-every", 1, "--steps", 2) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, signal_before)
    assert str(tmp_path / "run") in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("*state*")), "half a state was left"
    assert not list((tmp_path / "run").glob("*.safetensors*"))


# Where towers start, and where weights go


def test_a_file_of_another_size_is_refused(unbroken: Path, tmp_path: Path) -> None:
    path = tmp_path / "wide.safetensors"
    state = weights_of(ACFPN(replace(LEAST, neck=16)))
    write_safetensors(path, state, metadata(unbroken / "weights.safetensors"))
    with pytest.raises(WeightsInvalid, match=r"wide\.safetensors does not fit ACFPN: .* of another shape"):
        load_trained(path)


def test_which_keys_the_ablations_take() -> None:
    """SPEC 2.3: of ResNet-50 all but the stem, of ESResNeXt all but the classes."""
    some = {name: torch.zeros(1) for name in ("conv1.weight", "bn1.bias", "layer1.0.conv1.weight", "fc.bias")}
    assert set(IMAGE["resnet50"].of(some)) == {"layer1.0.conv1.weight"}
    assert set(AUDIO["esresnext"].of(some)) == set(some) - {"fc.bias"}
    towers = {"visual.conv1.weight": torch.zeros(1), "audio.conv1.weight": torch.zeros(1)}
    assert set(IMAGE["clip"].of(towers)) == set(AUDIO["audioclip"].of(towers)) == {"conv1.weight"}


def test_installing_a_shipped_network(unbroken: Path, tmp_path: Path) -> None:
    path = tiny.install("ac-fpn", unbroken / "weights.safetensors", tmp_path)
    shipped, whole = (read_safetensors(file) for file in (path, unbroken / "weights.safetensors"))
    assert all(
        torch.allclose(shipped[key].float(), whole[key].float(), rtol=1e-3, atol=1e-6) for key in whole
    )
    assert path.stat().st_size < 0.75 * (unbroken / "weights.safetensors").stat().st_size
    assert least().digest in (tmp_path / "ac-fpn.md").read_text()
    lock = json.loads((tmp_path / "weights.lock.json").read_text())
    assert lock["ac-fpn-tiny"]["file"] == "ac-fpn.safetensors"
    alone = tmp_path / "alone" / "weights.safetensors"  # its scores are gone
    alone.parent.mkdir()
    shutil.copyfile(unbroken / "weights.safetensors", alone)
    with pytest.raises(FileNotFoundError, match=r"test\.json"):
        tiny.install("ac-fpn", alone, tmp_path / "family")
    assert not (tmp_path / "family").exists()


def test_clips_of_different_sizes_make_one_batch() -> None:
    clips = [Feed("synth", least()).clips[0]]
    clips.append(replace(clips[0], frames=clips[0].frames[:, :64], truth=clips[0].truth[:, :64]))
    assert batch_of(clips, least()).images.shape == (10, 3, 32, 32)


def test_a_device_without_a_clip_leaves_the_scores_alone() -> None:
    """Three devices judge two clips: nothing times not a number would spoil the sum of all."""
    told: list[torch.Tensor] = []

    def all_reduce(sums: torch.Tensor, reduce_op: str) -> torch.Tensor:
        told.append(sums)
        return sums

    idle = SimpleNamespace(global_rank=2, world_size=3, device=torch.device("cpu"), all_reduce=all_reduce)
    clips = Feed("synth", least(clips=2)).clips
    judged(AcFpnLearner(ACFPN(LEAST), least()).eval(), clips, least(), idle)
    assert told[0].tolist() == [0, 0, 0, 0]
