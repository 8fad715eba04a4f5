"""`python -m models.training.calibrate`: at what cosine do frame and sound agree, for these weights?

On clips of SynthAVS, every second is asked how well it fits its frame: with the clip's own sound, where the
source is in view, and with silence, noise and a source that is not. The threshold that tells them apart best
goes into the lock entry of the weights, where strategies find it when `gate.agreement` is null. What it does
to whole masks is then told by

    python -m models.training.evaluate all --data synth:test --protocol robust --sweep gate.enabled=true,false

Of a recogniser that has learnt SynthAVS's names it also measures at what cosine a name is heard: Box-Prompt
then looks for every source of a second, and needs not be told how many there are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from models import parts
from models.datasets.clip import Clip, each
from models.datasets.mixing import mix
from models.datasets.scenes import SynthConfig
from models.datasets.synthavs import SynthAVS
from models.errors import EarshotError
from models.media import Window
from models.networks import Networks
from models.recogniser import Recogniser
from models.segments import AUDIOCLIP_RATE, resampled, whole_seconds
from models.strategies import STRATEGIES, no_prompt
from models.strategies.gate import decibels
from models.strategies.options import GateOptions
from models.training.benches import synth_bench
from models.training.evaluate import told, whole
from models.training.family.sounds import audible, best_f1
from models.training.judging import window_of
from models.vocabularies import vocabulary
from models.weights import DEFAULT_FOLDER, FRAME, NAME, OBJECT, Weights

NEGATIVE = ("silence", "noise", "offscreen")
ENERGIES = (-70.0, -60.0, -50.0, -40.0, -30.0)  # dB of full scale
RECOGNISERS = {"audioclip": parts.audioclip_recogniser, "clap": parts.clap_recogniser}
Row = NDArray[np.float32]
Cosines = Callable[[Window], Row]


@dataclass(frozen=True)
class Seconds:
    """Of n seconds: how well each fits its frame, and how loud it is, in dB of full scale."""

    cosines: Row
    loudness: Row

    def passing(self, agreement: float, energy: float = GateOptions().energy) -> float:
        """The share of them that the gate lets through."""
        passed = (self.cosines >= agreement) & (self.loudness >= energy)
        return float(passed.mean()) if len(passed) else float("nan")


def chosen(kept: Seconds, refused: Mapping[str, Seconds]) -> float:
    """The agreement with the largest harmonic mean of what is kept and what is refused, every kind of
    refusal counting alike; midway between two cosines that were met."""
    met = np.unique(np.concatenate([kept.cosines, *(each.cosines for each in refused.values())]))
    between = np.concatenate([[-1.0], (met[1:] + met[:-1]) / 2])
    return float(max(between, key=lambda agreement: balance(float(agreement), kept, refused)))


def balance(agreement: float, kept: Seconds, refused: Mapping[str, Seconds]) -> float:
    """1 where everything is kept that should be and nothing else; 0 where either is missed whole."""
    right = kept.passing(agreement)
    wrong = sum(each.passing(agreement) for each in refused.values()) / len(refused)
    return 2 * right * (1 - wrong) / (right + 1 - wrong) if right or wrong < 1 else 0.0


def measured(cosines: Cosines, clips: int, size: int) -> tuple[Seconds, dict[str, Seconds]]:
    """Seconds in whose frame something sounds, with their own sound; and those with other sounds, by kind."""
    bench = synth_bench("val", clips, config=SynthConfig(size=size))
    bar = partial(tqdm, total=len(bench.clips), disable=None)
    own = [seconds_of(clip, cosines, sounding(clip)) for clip in bar(each(bench.clips), desc="own sound")]
    refused = {
        probe: joined(
            [seconds_of(clip, cosines, ~sounding(clip)) for clip in bar(each(bench.probe(probe)), desc=probe)]
        )
        for probe in NEGATIVE
    }
    return joined(own), refused


def sounding(clip: Clip) -> NDArray[np.bool_]:
    """In which frames [T] something is lit by the sound that the clip now has."""
    return np.asarray(clip.expected.any(axis=(1, 2)))


def seconds_of(clip: Clip, cosines: Cosines, wanted: NDArray[np.bool_]) -> Seconds:
    """Those seconds of a clip that are `wanted`."""
    window = window_of(clip, {AUDIOCLIP_RATE})
    loudness = np.array([decibels(second) for second in window.audio[AUDIOCLIP_RATE]], np.float32)
    return Seconds(cosines(window)[wanted], loudness[wanted])


def joined(some: Sequence[Seconds]) -> Seconds:
    """All of them."""
    return Seconds(
        np.concatenate([one.cosines for one in some]), np.concatenate([one.loudness for one in some])
    )


def of_frames(networks: Networks) -> Cosines:
    """A whole frame with its second: what the heat-map strategies and Box-Prompt ask."""
    mapper = networks.shared(parts.sound_mapper)

    def cosines(window: Window) -> Row:
        assert window.frames is not None
        seconds = window.audio[AUDIOCLIP_RATE]
        return mapper(window.frames, seconds, surgery=False, reverse=False, scale="int16").agreement

    return cosines


def of_objects(networks: Networks) -> Cosines:
    """The best object that SAM finds in a frame with its second: what No-Prompt asks."""
    strategy = no_prompt.build(networks)
    assert isinstance(strategy, no_prompt.NoPrompt)
    options = STRATEGIES["no-prompt"].presets["best"]

    def cosines(window: Window) -> Row:
        assert window.frames is not None
        sounds = strategy.listen(window, range(len(window.frames)), options)
        embeddings = strategy.prompting.embed(window.frames)
        best = []
        for frame, sound, embedding in zip(window.frames, sounds, embeddings, strict=True):
            objects = strategy.objects(frame, embedding, options)
            best.append(
                max((one.cosine for one in strategy.scored(frame, objects, sound, options)), default=-1.0)
            )
        return np.array(best, np.float32)

    return cosines


def heard(recogniser: Recogniser, clips: int, size: int) -> tuple[float, float]:
    """The cosine from which on a name of SynthAVS counts as heard, in view or not, and its F1."""
    data = SynthAVS("val", clips, config=SynthConfig(size=size))
    names = vocabulary("synthavs")
    cosines, truth = [], []
    for number in tqdm(range(len(data)), desc="names", disable=None):
        scene, track = data.scene(number), data.track(number)
        sound = resampled(mix(scene, track, data.config), data.config.rate, recogniser.rate)
        seconds = whole_seconds(sound, recogniser.rate, data.config.seconds)
        cosines.append(recogniser.cosines(recogniser.listen(seconds), names))
        truth += [audible(scene, track, second) for second in range(data.config.seconds)]
    f1, threshold = best_f1(np.concatenate(cosines), np.stack(truth))
    return threshold, f1


def table(agreement: float, kept: Seconds, refused: Mapping[str, Seconds]) -> str:
    """What the gate lets through: with no agreement asked, at the chosen one, and by energy alone."""
    lines = [f"{'':24}{'in view':>10}" + "".join(f"{name:>10}" for name in refused)]
    cuts = [("nothing asked", -1.0, -200.0), (f"agreement {agreement:.3f}", agreement, GateOptions().energy)]
    cuts += [(f"energy {energy:g} dB", -1.0, energy) for energy in ENERGIES]
    for title, least, energy in cuts:
        shares = [seconds.passing(least, energy) for seconds in (kept, *refused.values())]
        lines.append(f"{title:24}" + "".join(f"{share:>10.3f}" for share in shares))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, writes; 2 with a sentence for what is not installed."""
    options = parser().parse_args(arguments)
    weights = Weights(options.weights_dir)
    networks = Networks(options.device, weights)
    kinds = {FRAME: of_frames} | ({OBJECT: of_objects} if options.objects else {})
    try:
        found: dict[str, dict[str, float]] = {"audioclip": {}, "clap": {}}
        for kind, build in kinds.items():
            clips = options.objects if kind == OBJECT else options.clips
            kept, refused = measured(build(networks), clips, options.size)
            found["audioclip"][kind] = round(chosen(kept, refused), 4)
            print(f"{kind}, {clips} clips of SynthAVS: share of seconds that pass")
            print(table(found["audioclip"][kind], kept, refused), flush=True)
        for network, part in RECOGNISERS.items():
            if weights.installed(network) and (recogniser := networks.shared(part)).made_for == "synthavs":
                threshold, f1 = heard(recogniser, options.clips, options.size)
                found[network][NAME] = round(threshold, 4)
                print(f"{NAME}, {network}: {threshold:.3f} gives an F1 of {f1:.3f}", flush=True)
        for network, thresholds in found.items():
            if thresholds and not options.dry_run:
                weights.calibrate(network, {**weights.calibration(network), **thresholds})
    except EarshotError as problem:
        print(problem, file=sys.stderr)
        return 2
    except OSError as problem:
        print(told(problem, options.weights_dir), file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = argparse.ArgumentParser(prog="python -m models.training.calibrate", description=__doc__)
    root.add_argument("--clips", type=whole(1), default=60, help="clips of SynthAVS (60)")
    root.add_argument(
        "--objects", type=whole(0), default=0, help="clips for No-Prompt too: slow, SAM's grid (0)"
    )
    root.add_argument("--size", type=whole(16), default=96, help="pixels of a side of SynthAVS (96)")
    root.add_argument("--dry-run", action="store_true", help="print, and write nothing")
    root.add_argument("--weights-dir", type=Path, default=DEFAULT_FOLDER, help="installed weights")
    root.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return root


if __name__ == "__main__":
    sys.exit(main())
