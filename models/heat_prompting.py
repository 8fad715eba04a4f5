"""What Point-Prompt and Heatmap-Box-Prompt share: heat maps of a window, the gate, and SAM where they are
bright. They differ in what they ask SAM at a map."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.media import Window
from models.prompting import Prompting
from models.prompts import Heat
from models.published_size import enlarged, squashed
from models.segments import AUDIOCLIP_RATE
from models.sound_maps import SoundMapper
from models.strategies import FrameMasks
from models.strategies.gate import NO_MASK, by_agreement, by_waveform, empty, united, unopposed
from models.strategies.options import HeatmapBoxPromptOptions, PointPromptOptions
from models.suppliers import Prompt

Options = PointPromptOptions | HeatmapBoxPromptOptions
Ask = Callable[[Heat, tuple[int, ...]], list[Prompt]]


@dataclass(frozen=True)
class MappedFrame:
    """A frame's heat map [s, s], None if nobody looked at it, and the gate's verdict."""

    heat: NDArray[np.float32] | None
    verdict: str | None


class HeatPrompting:
    """Frames in order; SAM sees those that the gate lets pass and that have a prompt, all in one batch."""

    def __init__(self, mapper: SoundMapper, prompting: Prompting) -> None:
        self.mapper, self.prompting = mapper, prompting

    def __call__(
        self, window: Window, options: Options, ask: Ask, nothing: str = NO_MASK
    ) -> Iterator[FrameMasks]:
        """`ask` makes the prompts of a heat map on a frame of (height, width); `nothing` is the reason of a
        frame that has none."""
        looked = mapped(window, self.mapper, options)
        assert window.frames is not None, "`mapped` looked at them"
        frames = squashed(window.frames) if options.resolution == "paper" else window.frames
        prompts = [
            [] if each.heat is None or each.verdict else ask(each.heat, frames.shape[1:3]) for each in looked
        ]
        answers = self.prompting(frames, prompts)
        for each, asked, segments in zip(looked, prompts, answers, strict=True):
            if each.verdict:
                yield empty(window.size, each.verdict, each.heat)
            else:
                masks = (enlarged(segment.mask, window.size) for segment in segments)
                yield united(window.size, masks, heat=each.heat, otherwise=NO_MASK if asked else nothing)


def mapped(window: Window, mapper: SoundMapper, options: Options) -> list[MappedFrame]:
    """Heat maps of the frames with sound, all in one batch, and whether sound and picture agree."""
    assert window.frames is not None, "the table of strategies says that this one needs pixels"
    seconds = window.audio[AUDIOCLIP_RATE]
    frames = [MappedFrame(None, verdict) for verdict in by_waveform(seconds, options.gate)]
    heard = unopposed([frame.verdict for frame in frames])
    maps = mapper(
        window.frames[heard],
        seconds[heard],
        surgery=options.surgery,
        reverse=options.reverse,
        scale=options.audio_scale,
        antialias=options.resolution == "source",
    )
    verdicts = by_agreement(maps.agreement, options.gate, mapper.calibrated)
    for index, heat, verdict in zip(heard, maps.heat, verdicts, strict=True):
        frames[index] = MappedFrame(heat, verdict)
    return frames
