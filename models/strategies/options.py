"""The options of every strategy: frozen pydantic dataclasses, published as JSON schema. Imports no torch.

Dataclasses here do not inherit: pydantic publishes the docstrings of a class's own fields only. What several
strategies take is an annotated type with its description.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from models.vocabularies import VocabularyName, chosen, vocabulary

CONFIG = ConfigDict(extra="forbid", use_attribute_docstrings=True)
MOST_LABELS = 1000
MOST_NAMES = 10  # looked for in one frame
LABEL_CHARACTERS = 100  # longer than every name of AudioSet; AudioCLIP's tiny text tower reads 75 bytes
SENTENCE_CHARACTERS = 200


def _named(text: str) -> str:
    """Something to look for: white space made single, and more than punctuation."""
    text = " ".join(text.split())
    if not any(character.isalnum() for character in text):
        raise ValueError("Name something: a word is missing here.")
    return text


Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Cosine = Annotated[float, Field(ge=-1.0, le=1.0)]
Label = Annotated[str, Field(max_length=LABEL_CHARACTERS), AfterValidator(_named)]
Sentence = Annotated[str, Field(max_length=SENTENCE_CHARACTERS), AfterValidator(_named)]
AudioScaleOption = Annotated[
    Literal["int16", "paper"],
    Field(
        description="`int16` feeds sound as AudioCLIP was trained (x 32768); `paper` as the published code "
        "does (+-1)."
    ),
]
ResolutionOption = Annotated[
    Literal["source", "paper"],
    Field(
        description="`source` segments the frame as it is; `paper` squashes it to 224 x 224 first and "
        "repeats the pixels of the mask."
    ),
]
SurgeryOption = Annotated[
    bool,
    Field(description="Let AudioCLIP's values attend to values, so that a place listens to places like it."),
]
ReverseOption = Annotated[
    bool | None,
    Field(
        description="Make bright what is unlike the sound: the published AudioCLIP's cosines are low at the "
        "source. Null is what the installed weights need."
    ),
]


Unevenness = Annotated[float, Field(ge=0.0, le=10.0)]
MORE_THAN_NOISE = 0.57  # dB: 1 of 950 sounding seconds of SynthAVS is as even, and 891 of 900 of noise


@dataclass(frozen=True, config=CONFIG)
class GateOptions:
    """When a second is answered with an empty mask and a reason, whatever the picture shows."""

    enabled: bool = True
    """Without the gate every second is segmented, as the published code does."""
    energy: Annotated[float, Field(ge=-120.0, le=0.0)] = -60.0
    """A second whose root mean square is below this, in dB of full scale, holds no sound."""
    unevenness: Unevenness = MORE_THAN_NOISE
    """A second that deviates by less than this, in dB, from noise of some colour, which is steady and has a
    spectrum that is but a slope, is noise and nothing else. 0 never asks."""
    noise: bool = True
    """Where names are recognised: nothing sounds if a name of silence or noise fits better than any other."""
    agreement: Cosine | None = None
    """AudioCLIP's cosine of frame and sound must reach this; `no-prompt` takes its best object's. Null is
    what the installed weights were calibrated to, if they were, but `box-prompt` does not ask then: its
    detector sees for itself. -1 never asks."""


@dataclass(frozen=True, config=CONFIG)
class MaskThreshold:
    """Thresholds of a strategy that gives one probability a pixel."""

    mask: Fraction = 0.5
    """A pixel belongs to the mask when its probability is above this."""


@dataclass(frozen=True, config=CONFIG)
class AcFpnOptions:
    """Options of `ac-fpn`."""

    thresholds: MaskThreshold = MaskThreshold()
    audio_scale: Literal["int16", "paper"] = "int16"
    """`int16` feeds sound as AudioCLIP was trained (x 32768); `paper` as the published code does (+-1)."""
    resolution: Literal["source", "paper"] = "source"
    """`source` brings the logits to the size of the frame; `paper` thresholds at 224 first."""
    silent_is_empty: bool = True
    """A second without any sound gives an empty mask; the published code segments it like any other."""
    unevenness: Unevenness = MORE_THAN_NOISE
    """So does one that deviates by less than this, in dB, from noise of some colour over the whole band:
    steady, and with a spectrum that is but a slope. 0 never asks, as the published code."""


@dataclass(frozen=True, config=CONFIG)
class TpaviOptions:
    """Options of `tpavi`."""

    thresholds: MaskThreshold = MaskThreshold()
    seconds: Literal["own", "paper"] = "own"
    """`own` lets each frame be heard with the first 0.96 s of its own second; `paper` joins the seconds of
    five frames and cuts the whole into pieces of 0.96 s, so that later frames are heard a little early."""
    resolution: Literal["source", "paper"] = "source"
    """`source` brings the logits to the size of the frame; `paper` thresholds at 224 first."""
    silent_is_empty: bool = True
    """A second without any sound gives an empty mask; the published code segments it like any other."""
    unevenness: Unevenness = MORE_THAN_NOISE
    """So does one that deviates by less than this, in dB, from noise of some colour over the whole band:
    steady, and with a spectrum that is but a slope. 0 never asks, as the published code."""


@dataclass(frozen=True, config=CONFIG)
class PointThreshold:
    """Thresholds of `point-prompt`."""

    heatmap: Fraction | None = None
    """Where points are taken: above it for `local`, from it on for `dense`. Null is 0.60 and 0.85, which the
    paper takes for single sources; for several it takes 0.65 and 0.70. `global` has none."""


@dataclass(frozen=True, config=CONFIG)
class PointPromptOptions:
    """Options of `point-prompt`."""

    points: Literal["global", "local", "dense"] = "dense"
    """The brightest and the darkest place; peaks and valleys; or the brightest and darkest of a grid."""
    thresholds: PointThreshold = PointThreshold()
    placing: Literal["exact", "paper"] = "exact"
    """`paper` puts peaks where the published code does, at (x, x), and breaks ties as NumPy happens to."""
    surgery: SurgeryOption = True
    reverse: ReverseOption = None
    audio_scale: AudioScaleOption = "int16"
    resolution: ResolutionOption = "source"
    gate: GateOptions = GateOptions()


@dataclass(frozen=True, config=CONFIG)
class HeatmapThreshold:
    """Thresholds of `heatmap-box-prompt`."""

    heatmap: Fraction = 0.55
    """Places from this on are bright; connected ones form a component."""


@dataclass(frozen=True, config=CONFIG)
class HeatmapBoxPromptOptions:
    """Options of `heatmap-box-prompt`."""

    component: Literal["largest", "all", "brightest"] = "largest"
    """The component with the most pixels; every one, their masks united; or that of the brightest pixel."""
    thresholds: HeatmapThreshold = HeatmapThreshold()
    surgery: SurgeryOption = True
    reverse: ReverseOption = None
    audio_scale: AudioScaleOption = "int16"
    resolution: ResolutionOption = "source"
    gate: GateOptions = GateOptions()


@dataclass(frozen=True, config=CONFIG)
class GridThresholds:
    """Thresholds of `no-prompt`: the first three choose the masks, the last those that sound."""

    quality: Fraction = 0.88
    """SAM's own estimate of a mask's IoU must be above this."""
    stability: Fraction = 0.95
    """IoU of the mask with itself when the logits are cut at +1 and at -1: must reach this."""
    overlap: Fraction = 0.7
    """Of two masks whose boxes overlap by more IoU than this, the better one stays. Of what is left, the best
    1,000 are compared with the sound."""
    score: Cosine | None = None
    """A mask sounds when its score is above this. Null is 0.9 for `minmax` and 0.5 for `softmax`; a cosine
    has no published value, so `cosine` must be given one."""


@dataclass(frozen=True, config=CONFIG)
class NoPromptOptions:
    """Options of `no-prompt`."""

    score: Literal["minmax", "softmax", "cosine"] = "minmax"
    """What becomes of the cosines of the masks of a frame with its sound: stretched to 0..1 (so the best mask
    always sounds), softmax of 100 times the cosine (so at most one reaches 0.5), or as they are."""
    thresholds: GridThresholds = GridThresholds()
    points_per_side: Annotated[int, Field(ge=1, le=64)] = 32
    """SAM is asked at this many points along each side of the frame."""
    crops: Literal["whole", "paper"] = "whole"
    """`paper` cuts each mask out without its last row and column, and where nothing is left, gives every
    later score to the mask before its own."""
    sound: Literal["trained", "paper"] = "trained"
    """`trained` is a second at 44.1 kHz, five times, x 32768; `paper` is one second at 48 kHz, +-1."""
    resolution: ResolutionOption = "source"
    gate: GateOptions = GateOptions()

    @model_validator(mode="after")
    def _threshold_of_cosines(self) -> NoPromptOptions:
        if self.score == "cosine" and self.thresholds.score is None:
            raise ValueError("With `score` = cosine, set `thresholds.score`: there is no published value.")
        return self


@dataclass(frozen=True, config=CONFIG)
class DetectionThresholds:
    """Thresholds of `box-prompt`."""

    box: Fraction = 0.25
    """A box counts when the detector's probability is above this; 0.30 as published."""
    audio: Cosine | None = None
    """A name counts when its cosine with the sound reaches this. Null takes the best, however they fit; but
    see `top_k`."""


@dataclass(frozen=True, config=CONFIG)
class BoxPromptOptions:
    """Options of `box-prompt`."""

    recogniser: Literal["clap", "audioclip"] = "clap"
    """Which network says what is heard."""
    vocabulary: VocabularyName | None = None
    """The names to choose from: AudioSet's 527, AVSBench's 23, the 70 of AVSBench-semantic or SynthAVS's 12.
    Null is `labels`, or where there are none, what the installed recogniser was made for: AudioSet for
    published weights, SynthAVS for the tiny ones."""
    labels: tuple[Label, ...] = Field(default=(), max_length=MOST_LABELS)
    """The names to choose from, in your own words. With `vocabulary`: those names of it. Not asked for where
    `prompt` is `caption` or `text`."""
    top_k: Annotated[int, Field(ge=1, le=MOST_NAMES)] | None = None
    """How many of the best names to look for in each frame. Null is all that reach `thresholds.audio`, or of
    the recogniser's own vocabulary the cosine that it was calibrated to, and at most 10; where neither says
    anything, the best."""
    prompt: Literal["label", "look", "caption", "text"] = "label"
    """What the detector is asked: the name; `Look! Object of {name}`; that one of `captions` that fits the
    sound best; or `text`, whatever is heard."""
    captions: tuple[Sentence, ...] = Field(default=(), max_length=MOST_LABELS)
    """Sentences to choose from when `prompt` is `caption`."""
    text: Sentence | None = None
    """The question when `prompt` is `text`, such as "the object in the middle"."""
    thresholds: DetectionThresholds = DetectionThresholds()
    nms: Fraction | None = 0.7
    """Of two boxes that overlap by more IoU than this, the surer one stays. Null keeps all, as published."""
    max_boxes: Annotated[int, Field(ge=1, le=100)] = 50
    """The surest boxes of a frame, at most this many; the published code has no bound."""
    resolution: ResolutionOption = "source"
    gate: GateOptions = GateOptions()

    @model_validator(mode="after")
    def _has_something_to_look_for(self) -> BoxPromptOptions:
        if (self.prompt == "caption") != bool(self.captions):
            raise ValueError("`captions` and `prompt` = caption go together: give both or neither.")
        if (self.prompt == "text") != (self.text is not None):
            raise ValueError("`text` and `prompt` = text go together: give both or neither.")
        self.candidates()
        return self

    def candidates(self, made_for: VocabularyName = "audioset") -> tuple[str, ...]:
        """What the sound is compared with, each once, for the detector reads no capitals; nothing if the
        question does not depend on it. `made_for` is the vocabulary of the recogniser's weights."""
        if self.prompt == "text":
            return ()
        if self.prompt == "caption":
            names = self.captions
        elif self.vocabulary is None:
            names = self.labels or vocabulary(made_for)
        else:
            names = chosen(self.vocabulary, self.labels) or vocabulary(self.vocabulary)
        first: dict[str, str] = {}
        for name in names:
            first.setdefault(name.casefold(), name)
        return tuple(first.values())


@dataclass(frozen=True, config=CONFIG)
class RandomSamOptions:
    """Options of `random-sam`."""

    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """The point of a frame depends on this and on the frame's number in the clip, on nothing else."""
    resolution: ResolutionOption = "source"


@dataclass(frozen=True, config=CONFIG)
class FullMaskOptions:
    """`full-mask` has none."""
