"""Draws the clips of SynthAVS that the playground offers; `python -m service.samples.synth` does it again.

Each scene is one mp4 (320 x 320, 5 s), a poster, and further sound tracks for the very same pictures, so that
anyone can swap the sound and see whether the masks follow. They are committed, so that the service starts
without drawing anything; the page reads `samples.json`.
"""

from __future__ import annotations

import json
import wave
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from models.datasets.clip import Sound
from models.datasets.drawing import draw
from models.datasets.kinds import KINDS
from models.datasets.mixing import mix, runs
from models.datasets.scenes import Scene, SynthConfig, Track
from models.datasets.synthavs import SynthAVS
from models.datasets.video import Coding, write_video

FOLDER = Path(__file__).parent
# Little noise and nobody out of view: a first look is for eyes and ears, not for hard cases.
CONFIG = SynthConfig(size=320, snr=(20.0, 30.0), offscreen=0.0)
POSTER = 96  # pixels
SMALL = Coding(preset="veryslow", crf=22, sound_bits=48_000)  # one is part of the first load of the page
SILENCE = "silence.wav"  # what "mute" puts under a clip


@dataclass(frozen=True)
class Pick:
    """A family of the test split: the track of its video, and those offered as other sounds."""

    name: str
    title: str
    family: int
    track: int
    others: tuple[int, ...]


PICKS = (
    Pick("turns", "Taking turns", 32, 1, (0, 2)),
    Pick("trio", "One of three", 15, 1, (0, 2)),
    Pick("quartet", "Four in view", 26, 1, (0,)),
    Pick("garden", "Flower to star", 37, 1, (2,)),
)


def main() -> None:
    clips = SynthAVS("test", config=CONFIG)
    listed = [made(pick, clips.scene(pick.family * CONFIG.tracks)) for pick in PICKS]
    with wave.open(str(FOLDER / SILENCE), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(2 * 8000))
    document = {"data": listed, "silence": SILENCE}
    (FOLDER / "samples.json").write_text(json.dumps(document, indent=2) + "\n")


def made(pick: Pick, scene: Scene) -> dict[str, Any]:
    """Writes the files of one scene, and says what they are."""
    write_video(FOLDER / f"{pick.name}.mp4", scene, scene.tracks[pick.track], CONFIG, SMALL)
    frames, _ = draw(scene, CONFIG, [2.0])
    Image.fromarray(frames[0]).resize((POSTER, POSTER), Image.Resampling.LANCZOS).save(
        FOLDER / f"{pick.name}.jpg", quality=82
    )
    sounds = []
    for number, track in zip("bc", pick.others, strict=False):
        name = f"{pick.name}-{number}.m4a"
        write_sound(FOLDER / name, mix(scene, scene.tracks[track], CONFIG), CONFIG.rate)
        sounds.append({"file": name, **told(scene, scene.tracks[track])})
    return {
        "name": pick.name,
        "caption": pick.title,
        "file": f"{pick.name}.mp4",
        "poster": f"{pick.name}.jpg",
        **told(scene, scene.tracks[pick.track]),
        "labels": sorted({KINDS[thing.kind].name for thing in scene.things}),
        "sounds": sounds,
    }


def told(scene: Scene, track: Track) -> dict[str, Any]:
    """What is heard, in the order in which it is first heard, and what really sounds when, in seconds."""
    sounding = [(KINDS[thing.kind], on) for thing, on in zip(scene.things, track.on, strict=True) if on.any()]
    sounding.sort(key=lambda pair: int(pair[1].argmax()))
    return {
        "heard": ", ".join(dict.fromkeys(kind.timbre for kind, _ in sounding)),
        "truth": {kind.name: list(runs(on)) for kind, on in sounding},
    }


def write_sound(path: Path, sound: Sound, rate: int) -> None:
    """Mono sound [samples] in [-1, 1] as AAC."""
    with av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("aac", rate=rate, layout="mono")
        stream.bit_rate = SMALL.sound_bits
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[None]), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


if __name__ == "__main__":
    main()
