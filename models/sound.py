"""The audio track of an open container: one-second pieces of mono sound at any rate.

The sound is cut into whole seconds from the start of the picture. Each second is decoded by a decoder of its
own that starts half a second earlier, and resampled with a margin on both sides; so a second of sound depends
on nothing but the file, and a clip read in windows equals the same clip read in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor, gcd

import av
import numpy as np
import soxr
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.codec.context import CodecContext, Flags2
from av.container import InputContainer
from av.packet import Packet
from numpy.typing import NDArray

from models.containers import focus
from models.errors import MediaTooLarge, UndecodableMedia
from models.segments import resampled, whole_seconds

Wave = NDArray[np.float32]
Span = tuple[float, float]

PRE_ROLL = Fraction(1, 2)  # seconds: AAC overlaps two packets, MP3 borrows bits from nine, SBR needs a header
MARGIN = Fraction(1, 10)  # seconds that the resampler's filter sees on both sides, at least
BREAK = Fraction(1, 50)  # seconds: packets whose times differ by less from where the sound is follow on
MAX_PACKETS = 200_000  # of one window: 2,000 a second in the densest codec, times a hundred
FULL_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63, "flt": 1.0, "dbl": 1.0}


@dataclass(frozen=True)
class Stretch:
    """Mono sound at the source's rate, and how many seconds after its start the sound in it ends."""

    wave: Wave
    end: Fraction


class Sound:
    """Cuts sound by seconds from `origin` on the container's clock; None: from the sound's own start."""

    def __init__(self, container: InputContainer, stream: AudioStream, origin: Fraction | None) -> None:
        self.container, self.stream = container, stream
        if stream.time_base is None:
            raise UndecodableMedia("The audio track has no time base.")
        self.time_base: Fraction = stream.time_base
        self.rate = stream.codec_context.sample_rate
        start = (stream.start_time or 0) * self.time_base
        self.origin = start if origin is None else origin
        self.samples_in_tick = float(self.time_base * self.rate)
        # What the track holds before its start is the encoder's run-in, and no sound of the clip.
        self.first_sample = round((start - self.origin) * self.rate)
        self.first_tick = 0 if self.samples_in_tick <= 1 else self.time_of_first_packet()
        self.first_position = float(self.first_tick * self.time_base - self.origin) * self.rate

    def windows(self, spans: Sequence[Span], rates: Sequence[int]) -> Mapping[int, Wave]:
        """For each rate float32 [spans, rate]: the second of sound that each span (start, end) names."""
        if not rates:
            return {}
        margins = {rate: margin_between(self.rate, rate) for rate in rates}
        margin = max(margins.values())
        pieces: dict[int, dict[int, Wave]] = {rate: {} for rate in rates}
        whole = Fraction(1)
        for second, stretch in self.seconds(spans, margin):
            if second == 0:
                whole = stretch.end - margin
            for rate in rates:
                pieces[rate][second] = self.second_at(stretch.wave, margin, margins[rate], rate)
        return {rate: np.stack([cut(pieces[rate], span, rate, whole) for span in spans]) for rate in rates}

    def benchmark(self, seconds: int, rate: int) -> Wave:
        """[seconds, rate]: the first seconds as AVSBench's loaders cut them, resampled in one piece."""
        begin, end = Fraction(0), seconds + margin_between(self.rate, rate)
        stretch = self.decode(self.packets(begin, end), begin, end)
        wave = stretch.wave[: round(stretch.end * self.rate)]
        return whole_seconds(resampled(wave, self.rate, rate), rate, seconds)

    def seconds(self, spans: Sequence[Span], margin: Fraction) -> Iterator[tuple[int, Stretch]]:
        """Each whole second that a span touches, with `margin` seconds of sound on both sides."""
        wanted = {second for start, end in spans for second in range(floor(start), ceil(end))}
        for run in runs(sorted(wanted)):
            packets = self.packets(run[0] - margin, run[-1] + 1 + margin)
            for second in run:
                yield second, self.decode(packets, second - margin, second + 1 + margin)

    def packets(self, begin: Fraction, end: Fraction) -> list[Packet[AudioStream]]:
        """What must be decoded for the sound from `begin` to `end`, with the pre-roll."""
        focus(self.container, self.stream)
        from_tick, to_tick = self.ticks(begin - PRE_ROLL), self.ticks(end)
        found: list[Packet[AudioStream]] = []
        for packet in self.seek(from_tick):
            if packet.pts is None or not packet.size:
                continue
            if packet.pts >= to_tick:
                break
            if packet.pts + (packet.duration or 0) >= from_tick:
                found.append(packet)
            if len(found) > MAX_PACKETS:
                raise MediaTooLarge("number of audio packets in a window", MAX_PACKETS, len(found), "packets")
        return found

    def seek(self, tick: int) -> Iterator[Packet[AudioStream]]:
        """Packets from `tick` or a little earlier on."""
        try:
            self.container.seek(tick, stream=self.stream)
        except av.error.FFmpegError:
            # Some demuxers refuse a time before their first packet.
            self.container.seek(self.stream.start_time or 0, stream=self.stream)
        return self.container.demux(self.stream)

    def time_of_first_packet(self) -> int:
        """In ticks: all other packets lie a whole number of packets after it."""
        focus(self.container, self.stream)
        first = next(self.seek(self.stream.start_time or 0), None)
        return 0 if first is None else first.pts or 0

    def decode(self, packets: Sequence[Packet[AudioStream]], begin: Fraction, end: Fraction) -> Stretch:
        """Sound from `begin` to `end`, silent where there is none or where it is damaged."""
        first = round(begin * self.rate)
        wave = np.zeros(round((end - begin) * self.rate), np.float32)
        from_tick, to_tick = self.ticks(begin - PRE_ROLL), self.ticks(end)
        decoder = self.fresh_decoder()
        filled, cursor = 0, None
        for packet in packets:
            pts = packet.pts or 0
            if pts >= to_tick or pts + (packet.duration or 0) < from_tick:
                continue
            for frame in decoded(decoder, packet):
                sound = self.mono(frame)
                position = self.position(pts, len(sound))
                if cursor is None or abs(position - cursor) > BREAK * self.rate:
                    cursor = position
                if not packet.is_discard:
                    filled = max(filled, paste(wave, sound, cursor - first, self.first_sample - first))
                cursor += len(sound)
        return Stretch(np.nan_to_num(wave).clip(-1, 1), Fraction(filled, self.rate))

    def fresh_decoder(self) -> AudioCodecContext:
        """A decoder without a past: flushing is not enough, AAC's noise generator would run on."""
        template = self.stream.codec_context
        if "pcm" in template.name:
            template.flush_buffers()
            return template
        decoder = CodecContext.create(template.codec.name, "r")
        assert isinstance(decoder, AudioCodecContext)
        decoder.extradata = template.extradata
        decoder.sample_rate = template.sample_rate
        decoder.layout = template.layout
        decoder.flags2 |= Flags2.skip_manual  # `paste` cuts the encoder's run-in off by time
        return decoder

    def mono(self, frame: AudioFrame) -> Wave:
        """The mean of the channels, float32; full scale is 1."""
        if frame.sample_rate != self.rate:
            raise UndecodableMedia("The audio changes its sample rate on the way, which is not supported.")
        samples = frame.to_ndarray()
        if not frame.format.is_planar:
            samples = samples.reshape(frame.samples, -1).T
        name = frame.format.name.removesuffix("p")
        offset = FULL_SCALE["u8"] if name == "u8" else 0.0
        with np.errstate(over="ignore", invalid="ignore"):  # samples may be any float, infinity included
            mean: Wave = (samples.astype(np.float32) - np.float32(offset)).mean(axis=0, dtype=np.float32)
        return mean / np.float32(FULL_SCALE[name])

    def position(self, pts: int, samples: int) -> int:
        """The number, from the origin, of the first sample of a packet of `samples` at `pts`."""
        offset = (pts - self.first_tick) * self.samples_in_tick
        if self.samples_in_tick > 1:
            # The container rounds times: what lies within a tick of a whole number of packets lies there.
            whole = round(offset / samples) * samples
            offset = whole if abs(whole - offset) <= self.samples_in_tick else offset
        return round(self.first_position + offset)

    def ticks(self, second: Fraction) -> int:
        """Seconds from the origin in units of the track's time base."""
        return floor((second + self.origin) / self.time_base)

    def second_at(self, wave: Wave, has: Fraction, needs: Fraction, rate: int) -> Wave:
        """The second in the middle of `wave` at `rate`; `has` and `needs` are margins in seconds."""
        skip = round((has - needs) * self.rate)
        inner = wave[skip : len(wave) - skip]
        if rate != self.rate:
            inner = soxr.resample(inner, self.rate, rate, quality="HQ")
        before = round(needs * rate)
        second: Wave = np.clip(inner[before : before + rate], -1, 1)
        return second


def decoded(decoder: AudioCodecContext, packet: Packet[AudioStream]) -> list[AudioFrame]:
    """The frames of one packet; none of a damaged one."""
    try:
        return [frame for frame in decoder.decode(packet) if frame.samples]
    except av.error.FFmpegError:
        return []


def paste(wave: Wave, sound: Wave, position: int, earliest: int) -> int:
    """Write `sound` into `wave` at `position`, but nothing before `earliest`; where what is written ends."""
    begin = max(0, position, earliest)
    end = min(len(wave), position + len(sound))
    if end <= begin:
        return 0
    wave[begin:end] = sound[begin - position : end - position]
    return end


def cut(seconds: Mapping[int, Wave], span: Span, rate: int, whole: Fraction) -> Wave:
    """The second that `span` names. `whole`: where the sound ends, if that is before its second 0 is over."""
    whole = min(whole, Fraction(span[1]))
    if span[0] < whole < 1:
        # All the sound that there is, again and again, as the papers' code does with short clips.
        return np.resize(seconds[0][: ceil(whole * rate)], rate)
    begin = round(span[0] * rate)
    first, last = begin // rate, (begin + rate - 1) // rate
    return np.concatenate([seconds[second] for second in range(first, last + 1)])[begin % rate :][:rate]


def margin_between(source: int, target: int) -> Fraction:
    """The shortest time of MARGIN or more that is a whole number of samples at both rates."""
    if source == target:
        return Fraction(0)
    step = Fraction(1, gcd(source, target))
    return ceil(MARGIN / step) * step


def runs(seconds: Sequence[int]) -> Iterator[list[int]]:
    """Ascending numbers, grouped where they follow on each other."""
    run: list[int] = []
    for second in seconds:
        if run and second != run[-1] + 1:
            yield run
            run = []
        run.append(second)
    if run:
        yield run
