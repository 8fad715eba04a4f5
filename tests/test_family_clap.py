"""How the tiny CLAP learns, and what the shipped one has learnt."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from numpy.random import RandomState

from models import clap
from models.datasets.kinds import CLASS_NAMES, CLASSES, TIMBRE_NAMES
from models.datasets.synthavs import SynthAVS
from models.training import tiny
from models.training.family.clap import ANSWERS, MEANINGS, NAMES, ClapTask, judged, seconds_of
from models.training.family.clap import strangers as unheard
from models.training.family.pool import Pool
from models.training.family.sounds import best_f1
from models.training.family.task import Plan
from models.vocabularies import NOISE
from models.weights import Weights

PLAN = Plan(steps=10, batch=8, best="F1")


def test_a_batch_follows_from_the_step() -> None:
    """In the part that mixes spectra and in the part that plays sound; another step is another batch."""
    one, other = ClapTask(PLAN, pool=2), ClapTask(PLAN, pool=2)
    for step in (1, 9):
        batch = one.batch(step)
        assert all(torch.equal(here, there) for here, there in zip(batch, other.batch(step), strict=True))
        assert not torch.equal(batch.mel, one.batch(step - 1).mel)
        assert batch.mel.shape == (8, 1, 64, 64)
        assert batch.heard.any(1).all()


def test_names_mean_what_sounds_noise_or_silence() -> None:
    meant = MEANINGS.argmax(1)
    names = (*NAMES, *NOISE)
    assert MEANINGS.shape == (len(names), ANSWERS)
    for number, (name, timbre) in enumerate(zip(CLASS_NAMES, TIMBRE_NAMES, strict=True)):
        assert meant[names.index(name)] == meant[names.index(timbre)] == number
    assert [name for name, answer in zip(names, meant, strict=True) if answer == CLASSES + 1] == ["Silence"]
    assert not {"Bell", "Church bell", "Siren", "White noise", "Silence"} & set(unheard())


def test_spectra_add_up() -> None:
    """A mixture is the sum of its parts: with one voice of each class in the pool, they can be counted."""

    def levels(sound: np.ndarray) -> np.ndarray:
        return np.full((len(sound), 1, 1), float((sound**2).mean()), np.float32)

    pool = Pool(levels, 16_000, 1, RandomState(0))
    spectra, heard = pool.mixtures(RandomState(0), 400, 1.0)
    loudest = 2.0 * float(pool.voices.max())
    sources = heard[:, :CLASSES].sum(1)
    assert set(sources) == {0, 1, 2, 3, 4}
    assert (heard[:, CLASSES:].any(1) == (sources == 0)).all()
    assert (spectra[:, 0, 0] <= sources * loudest + float(pool.noises.max())).all()
    assert spectra[heard[:, CLASSES + 1] == 1].max() < 1e-6


def test_the_losses_fall_in_a_handful_of_steps() -> None:
    task = ClapTask(PLAN, pool=2)
    task.learner.train()
    batch = task.batch(5)
    optimizer = torch.optim.AdamW(task.learner.parameters(), lr=3e-3)
    totals = []
    for _ in range(12):
        losses = task.losses(batch)
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        torch.autograd.backward(total)
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.75 * totals[0]


def test_the_best_f1_is_that_of_the_best_threshold() -> None:
    cosines = np.array([[0.9, 0.1], [0.8, 0.3], [0.2, 0.4]], np.float32)
    fits = np.array([[True, False], [True, True], [False, False]])
    f1, threshold = best_f1(cosines, fits)
    assert threshold == pytest.approx(0.3)  # 3 of 3 found, and one wrong
    assert f1 == pytest.approx(6 / 7)


def test_the_family_knows_it() -> None:
    task = tiny.task("clap", steps=3, seed=7)
    assert (task.name, task.plan.steps, task.plan.seed) == ("clap-tiny", 3, 7)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_shipped_one_names_what_sounds(seed: int) -> None:
    sounds, classes = seconds_of(SynthAVS("test", 8, seed=seed))
    encoder = clap.load(Weights(prefer={"clap": "clap-tiny"}))
    scores = judged(encoder.network, sounds, classes)
    assert scores["F1"] > 0.7
    assert scores["top1"] > 0.85
    assert scores["heard"] > 0.9


def test_the_shipped_one_knows_silence() -> None:
    encoder = clap.load(Weights(prefer={"clap": "clap-tiny"}))
    fit = partial(torch.matmul, encoder.audio(np.zeros((1, clap.SAMPLE_RATE), np.float32)))
    assert fit(encoder.text(list(NOISE)).T).argmax() == NOISE.index("Silence")
    assert fit(encoder.text(list(NOISE)).T).max() > fit(encoder.text(list(NAMES)).T).max()
