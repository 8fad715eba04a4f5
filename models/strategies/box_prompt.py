"""Box-Prompt: what is heard, by name; where that is seen, boxes; in each box, a mask.

A recogniser (CLAP or AudioCLIP) chooses the names that fit the second of sound, Grounding DINO finds them in
the frame, SAM cuts each out of its box.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models import parts
from models.batching import Batcher
from models.media import Window
from models.networks import Networks
from models.overlaps import suppressed
from models.packed_masks import PackedMask
from models.prompting import Prompting, Segment
from models.published_size import enlarged, squashed
from models.recogniser import Recogniser, best
from models.segments import AUDIOCLIP_RATE
from models.sound_maps import SoundMapper
from models.stages import stage
from models.strategies import FrameMasks, Instance, Segmenter
from models.strategies.gate import (
    NO_MASK,
    Verdicts,
    agreement_of,
    by_agreement,
    by_noise,
    by_waveform,
    empty,
    united,
    unopposed,
)
from models.strategies.options import MOST_NAMES, BoxPromptOptions
from models.suppliers import Detection, Detector, Prompt
from models.vocabularies import NOISE, VocabularyName

UNNAMED = "No name fits the sound of this second well enough."


@dataclass(frozen=True)
class Heard:
    """A name that fits a second, its cosine (None if nobody listened), and what the detector is asked."""

    name: str
    score: float | None
    question: str


@dataclass(frozen=True)
class Look:
    """One frame on its way to the detector."""

    pixels: NDArray[np.uint8]
    questions: tuple[str, ...]
    threshold: float


class BoxPrompt:
    """A `Segmenter`."""

    def __init__(
        self,
        recognisers: Mapping[str, Recogniser],
        detector: Detector,
        prompting: Prompting,
        mapper: SoundMapper,
        batcher: Batcher,
    ) -> None:
        self.recognisers, self.detector, self.mapper = recognisers, detector, mapper
        self.prompting, self.batcher = prompting, batcher

    def __call__(self, window: Window, options: BoxPromptOptions) -> Iterator[FrameMasks]:
        """Frames in order. Each network sees all the frames it needs in one batch."""
        assert window.frames is not None, "the table of strategies says that this one needs pixels"
        frames = squashed(window.frames) if options.resolution == "paper" else window.frames
        verdicts, heard = self.recognise(window, options)
        found = [kept(boxes, options) for boxes in self.detect(frames, heard, options)]
        prompts = [[Prompt(0, box=each.box) for each in boxes] for boxes in found]
        answers = self.prompting(frames, prompts, multimask=False)
        scale = window.size[1] / frames.shape[2], window.size[0] / frames.shape[1]
        for verdict, names, boxes, segments in zip(verdicts, heard, found, answers, strict=True):
            if verdict:
                yield empty(window.size, verdict)
            else:
                instances = instances_of(names, boxes, segments, scale, window.size)
                masks = (instance.mask.pixels() for instance in instances)
                reason = NO_MASK if boxes else nowhere(names)
                yield united(window.size, masks, instances=instances, otherwise=reason)

    def recognise(self, window: Window, options: BoxPromptOptions) -> tuple[Verdicts, list[list[Heard]]]:
        """What sounds in each second, and why nothing does; all seconds in one batch."""
        recogniser = self.recognisers[options.recogniser]
        seconds = window.audio[recogniser.rate]
        verdicts = self.audible_and_visible(window, options)
        heard: list[list[Heard]] = [[] for _ in seconds]
        loud = unopposed(verdicts)
        if options.text is not None:
            for index in loud:
                heard[index] = [Heard(options.text, None, options.text)]
            return verdicts, heard
        names, noises = rivals(options, recogniser.made_for)
        sounds = recogniser.listen(seconds[loud])
        scores = recogniser.cosines(sounds, names)
        judged = by_noise(scores, recogniser.cosines(sounds, noises), options.gate)
        for index, row, verdict in zip(loud, scores, judged, strict=True):
            fitting = best(row, *sought(options, recogniser))
            heard[index] = [Heard(names[i], float(row[i]), question(names[i], options)) for i in fitting]
            verdicts[index] = verdict or (None if fitting else UNNAMED)
        return verdicts, [[] if verdict else each for verdict, each in zip(verdicts, heard, strict=True)]

    def audible_and_visible(self, window: Window, options: BoxPromptOptions) -> Verdicts:
        """The judges that need no name: the waveform's, and where the caller gives a threshold, whether
        AudioCLIP finds that frame and sound agree. Unasked, the detector judges what is in view: what is
        calibrated took more from what should be kept than from what should not."""
        assert window.frames is not None, "the table of strategies says that this one needs pixels"
        seconds = window.audio[AUDIOCLIP_RATE]
        verdicts = by_waveform(seconds, options.gate)
        if agreement_of(options.gate, None) is None:
            return verdicts
        loud = unopposed(verdicts)
        maps = self.mapper(window.frames[loud], seconds[loud], surgery=False, reverse=False, scale="int16")
        judged = by_agreement(maps.agreement, options.gate)
        for index, verdict in zip(loud, judged, strict=True):
            verdicts[index] = verdict
        return verdicts

    def detect(
        self, frames: NDArray[np.uint8], heard: list[list[Heard]], options: BoxPromptOptions
    ) -> list[list[Detection]]:
        """The boxes of each frame; those in which nothing is heard are not looked at."""
        looks = [
            Look(frame, tuple(each.question for each in names), options.thresholds.box)
            for frame, names in zip(frames, heard, strict=True)
            if names
        ]
        with stage("detect"):
            found = iter(self.batcher(self._detect, looks, (frames.shape[1:], options.thresholds.box)))
        return [next(found) if names else [] for names in heard]

    def _detect(self, looks: list[Look]) -> list[list[Detection]]:
        """One pass over frames of one size."""
        frames = np.stack([look.pixels for look in looks])
        return self.detector.detect(frames, [look.questions for look in looks], looks[0].threshold)


def rivals(options: BoxPromptOptions, made_for: VocabularyName = "audioset") -> tuple[list[str], list[str]]:
    """The names to choose from, and those of silence and noise that may beat them, if the gate asks.

    What the caller names is never taken for noise.
    """
    names = options.candidates(made_for)
    if not (options.gate.enabled and options.gate.noise):
        return list(names), []
    wanted = {name.casefold() for name in (*options.labels, *options.captions)}
    noises = [noise for noise in NOISE if noise.casefold() not in wanted]
    return [name for name in names if name not in noises], noises


def sought(options: BoxPromptOptions, recogniser: Recogniser) -> tuple[int, float | None]:
    """At most how many names are looked for, and what cosine they must reach. Several can sound at once, or
    one of them out of view; but how many do, only a threshold can tell."""
    least = options.thresholds.audio
    if options.top_k is not None:
        return options.top_k, least
    own = not options.labels and not options.captions
    if least is None and own and options.vocabulary in (None, recogniser.made_for):
        least = recogniser.calibrated
    return (1 if least is None else MOST_NAMES), least


def question(name: str, options: BoxPromptOptions) -> str:
    """What the detector is asked."""
    return f"Look! Object of {name}" if options.prompt == "look" else name


def kept(found: list[Detection], options: BoxPromptOptions) -> list[Detection]:
    """At most `max_boxes`, the surest; best first where overlaps are suppressed, else in their order."""
    if not found:
        return []
    scores = np.array([each.score for each in found], np.float32)
    if options.nms is not None:
        order = suppressed(np.array([each.box for each in found], np.float32), scores, options.nms)
        return [found[index] for index in order[: options.max_boxes]]
    surest = np.argsort(-scores, kind="stable")[: options.max_boxes]
    return [found[index] for index in sorted(surest)]


def instances_of(
    names: list[Heard],
    boxes: list[Detection],
    segments: Iterable[Segment],
    scale: tuple[float, float],
    size: tuple[int, int],
) -> tuple[Instance, ...]:
    """What was found, with box and mask in pixels of the source frame; without what has no pixel there."""
    asked = {each.question: each for each in names}
    masks = (enlarged(segment.mask, size) for segment in segments)
    return tuple(
        Instance(
            label=asked[box.label].name,
            score=box.score,
            audio_score=asked[box.label].score,
            bbox=clipped(box, scale, size),
            mask=PackedMask.of(mask),
        )
        for box, mask in zip(boxes, masks, strict=True)
        if mask.any()
    )


def clipped(
    found: Detection, scale: tuple[float, float], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """A box in pixels of the source frame, no larger than it: the detector may point beyond the edge."""
    x1, y1, x2, y2 = found.box
    across = [min(max(x * scale[0], 0.0), float(size[1])) for x in (x1, x2)]
    down = [min(max(y * scale[1], 0.0), float(size[0])) for y in (y1, y2)]
    return across[0], down[0], across[1], down[1]


def nowhere(names: list[Heard]) -> str:
    """Why a frame is empty in which something is heard."""
    heard = ", ".join(each.name.rstrip(".") for each in names)
    return f"Nothing in the frame looks like what is heard: {heard}."


def build(networks: Networks) -> Segmenter:
    """Needs CLAP, AudioCLIP, Grounding DINO and SAM."""
    recognisers = {
        "clap": networks.shared(parts.clap_recogniser),
        "audioclip": networks.shared(parts.audioclip_recogniser),
    }
    prompting = networks.shared(parts.prompting)
    mapper = networks.shared(parts.sound_mapper)
    return BoxPrompt(recognisers, networks["grounding-dino"], prompting, mapper, networks.batcher)
