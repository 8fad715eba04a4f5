"""The video track of an open container: which frame is on the screen at a time, and that frame's pixels.

Finding a frame reads packets only; decoding it starts at the key frame that governs it, wherever the last
read ended. So a frame's pixels depend on nothing but the file and the frame, and a clip read in windows
equals the same clip read in one pass.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from heapq import heappop, heappush
from itertools import groupby, islice
from typing import TypeAlias

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from models.containers import Limits, focus
from models.errors import MediaTooLarge, UndecodableMedia

SEEK_GAP = 10.0  # seconds: to a frame further ahead, seeking is quicker than reading on
BACK_OFF = (0.0, 1.0, 4.0, 16.0, 64.0)  # seconds before a frame at which its key frame is looked for, in turn
LATE = 4  # frames later than the one waited for, after which that one is taken for lost
REORDER = 32  # packets: no codec here shows a frame later than this many packets after those that follow it
ROUNDING = 0.0006  # seconds: Matroska rounds to whole milliseconds
REORDERING = {"h264", "hevc"}  # decoders that heed `skip_frame` packet by packet
USUAL_RATE = 25.0  # frames a second, where a file with one frame or none gives no rate
ENDED = 1.0  # seconds by which a header may promise more picture than there is

Packets: TypeAlias = "Iterator[Packet[VideoStream]]"


@dataclass(frozen=True, order=True)
class Shown:
    """A frame by its time, all in ticks of the track's time base."""

    pts: int
    until: int = field(compare=False)  # when it goes, by what its packet says
    key: int = field(compare=False)  # time of the key frame from which it is decoded
    depth: int = field(compare=False)  # packets from that key frame to this one


class Pictures:
    """Looks frames up by seconds from the start of the track, and decodes them."""

    def __init__(self, container: InputContainer, stream: VideoStream, limits: Limits) -> None:
        self.container, self.stream, self.limits = container, stream, limits
        if stream.time_base is None:
            raise UndecodableMedia("The video track has no time base.")
        self.time_base: Fraction = stream.time_base
        self.start = stream.start_time or 0
        self.origin = self.start * self.time_base  # seconds on the container's clock
        # AVI numbers its packets and has no time of showing: the first frame out has the first number.
        # Of older codecs with B-frames libav finds the times.
        self.in_order = container.format.name == "avi" and stream.codec_context.name in REORDERING
        # One thread: windows are what runs in parallel, and frame threads cost memory and latency.
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1

    def locate(self, times: Sequence[float]) -> list[Shown]:
        """The frame on the screen at each of these ascending times."""
        shown: list[Shown] = []
        scan: Scan | None = None
        gap = self.ticks(SEEK_GAP)
        for time in times:
            tick = self.start + self.ticks(time)
            if scan is None or tick - scan.reached > gap:
                scan = Scan(self.from_key_frame(tick), self.limits.key_frame_distance)
            frame = scan.on_screen(tick)
            if frame is None or (scan.ended and tick - frame.until > self.ticks(ENDED)):
                raise UndecodableMedia(f"The video ends before {time:.2f} seconds: the file is cut short.")
            shown.append(frame)
        return shown

    @property
    def rate(self) -> float:
        """Frames a second, on average."""
        return float(self.stream.average_rate or self.stream.guessed_rate or 0) or USUAL_RATE

    def duration(self) -> float:
        """Seconds of picture: what the header says of this track, else by its last packets."""
        if self.stream.duration:
            return float(self.stream.duration * self.time_base)
        whole = Fraction(self.container.duration or 0, av.time_base)
        frame = 1 / Fraction(self.rate) / self.time_base
        last = max(
            (
                time_of(packet) + (packet.duration or frame)
                for packet in self.from_key_frame(self.ticks(whole))
            ),
            default=self.start,
        )
        return float((last - self.start) * self.time_base)

    def pixels(self, shown: Sequence[Shown], size: tuple[int, int], rotation: int) -> NDArray[np.uint8]:
        """RGB [n, height, width, 3] of `size` (height, width), turned clockwise by `rotation` degrees."""
        images = np.empty((len(shown), *size, 3), np.uint8)
        for image, frame in zip(images, self.decode(shown), strict=True):
            image[:] = upright(frame, size, rotation)
        return images

    def timestamp(self, shown: Shown) -> float:
        """Seconds from the start of the track."""
        return float((shown.pts - self.start) * self.time_base)

    def decode(self, shown: Sequence[Shown]) -> Iterator[VideoFrame]:
        """The frames themselves, in the given ascending order."""
        for key, group in groupby(shown, key=lambda frame: frame.key):
            yield from self.decode_group(key, list(group))

    def decode_group(self, key: int, wanted: Sequence[Shown]) -> Iterator[VideoFrame]:
        """Ascending frames governed by the key frame at `key`; for a damaged one, the nearest before it."""
        decoded = self.frames_from(key, frozenset(shown.pts for shown in wanted), wanted[-1].depth + REORDER)
        latest: VideoFrame | None = None
        ahead: list[VideoFrame] = []
        for shown in wanted:
            while ahead and time_of(ahead[0]) <= shown.pts:
                latest = ahead.pop(0)
            while (latest is None or time_of(latest) != shown.pts) and len(ahead) < LATE:
                frame = next(decoded, None)
                if frame is None:
                    break
                if time_of(frame) <= shown.pts:
                    latest = frame
                else:
                    insort(ahead, frame, key=time_of)
            latest = latest or next(iter(ahead), None)
            if latest is None:
                raise UndecodableMedia("No frame of the video could be decoded: it is damaged.")
            yield latest

    def frames_from(self, key: int, wanted: frozenset[int], packets: int) -> Iterator[VideoFrame]:
        """Frames as the decoder puts them out for a number of packets from the key frame on."""
        decoder = self.stream.codec_context
        decoder.flush_buffers()
        times: list[int] = []
        for packet in islice(self.after_key_frame(key), packets):
            if packet.size:
                heappush(times, time_of(packet))
            if decoder.name in REORDERING and not self.in_order:
                # What nobody asked for and no other frame refers to need not be decoded.
                decoder.skip_frame = "DEFAULT" if packet.pts in wanted or not packet.size else "NONREF"
            for frame in decoded(decoder, packet):
                if self.in_order and times:
                    frame.pts = heappop(times)
                yield frame

    def after_key_frame(self, key: int) -> Packets:
        """Packets from the key frame at `key` on; without it, from the first at or before it."""
        packets = self.from_key_frame(key)
        for packet in packets:
            if time_of(packet) == key:
                yield packet
                break
        yield from packets

    def from_key_frame(self, tick: int) -> Packets:
        """Packets from a key frame on that is shown at `tick` or before; from the first packet if none is."""
        for seconds in BACK_OFF:
            packets = self.seek(tick - self.ticks(seconds))
            first = next((packet for packet in packets if packet.is_keyframe), None)
            if first is not None and time_of(first) <= tick:
                return joined(first, packets)
        return self.seek(min(self.start, 0) - self.ticks(BACK_OFF[-1]))

    def seek(self, tick: int) -> Packets:
        """Packets from the last key frame before `tick` that the container knows of."""
        focus(self.container, self.stream)
        try:
            self.container.seek(tick, stream=self.stream)
        except av.error.FFmpegError:
            # Some demuxers refuse a time before their first packet.
            self.container.seek(self.start, stream=self.stream)
        return self.container.demux(self.stream)

    def ticks(self, seconds: float | Fraction) -> int:
        """Seconds in units of the track's time base."""
        tolerance = min(self.time_base / 2, Fraction(ROUNDING))
        return int((Fraction(seconds) + tolerance) / self.time_base // 1)


class Scan:
    """Reads packets in the order of decoding, and tells which frame is on the screen."""

    def __init__(self, packets: Packets, distance: int) -> None:
        self.packets, self.distance = packets, distance
        self.frames: list[Shown] = []  # read, not yet passed, in the order of showing
        self.keys: list[tuple[int, int]] = []  # time and number of the last two key frames
        self.count = 0
        self.later = 0  # packets in a row that are shown after the time asked for
        self.reached = -(1 << 62)
        self.ended = False

    def on_screen(self, tick: int) -> Shown | None:
        """The last frame shown at or before `tick`, else the first of all. Times asked for only grow."""
        self.later = 0
        while not self.ended and self.reached <= tick and self.later < REORDER:
            self.read(tick)
        position = bisect_right(self.frames, tick, key=lambda frame: frame.pts)
        del self.frames[: max(0, position - 1)]
        return self.frames[0] if self.frames else None

    def read(self, tick: int) -> None:
        """Take in one packet."""
        packet = next(self.packets, None)
        if packet is None or not packet.size:
            self.ended = True
            return
        pts = time_of(packet)
        self.later = self.later + 1 if pts > tick else 0
        if packet.dts is not None:
            self.reached = max(self.reached, packet.dts)
        self.count += 1
        if packet.is_keyframe or not self.keys:
            self.keys = [*self.keys[-1:], (pts, self.count)]
        # A frame shown before the key frame that it follows needs the key frame before that one.
        key, number = next((key for key in reversed(self.keys) if key[0] <= pts), self.keys[0])
        if self.count - number > self.distance:
            limit = "distance from a key frame to a sampled one"
            raise MediaTooLarge(limit, self.distance, self.count - number, "frames")
        if not packet.is_discard:
            insort(self.frames, Shown(pts, pts + (packet.duration or 0), key, self.count - number))


def time_of(item: Packet[VideoStream] | VideoFrame) -> int:
    """When a packet's or decoder's frame is shown, in ticks; the start where the file does not say."""
    return item.pts if item.pts is not None else item.dts or 0


def joined(first: Packet[VideoStream], rest: Packets) -> Packets:
    """One packet that was read ahead, then the others."""
    yield first
    yield from rest


def decoded(decoder: VideoCodecContext, packet: Packet[VideoStream]) -> list[VideoFrame]:
    """The frames that a packet completes; none of a damaged one, so that the frame before it stays."""
    try:
        return decoder.decode(packet)
    except av.error.FFmpegError:
        return []


def upright(frame: VideoFrame, size: tuple[int, int], rotation: int) -> NDArray[np.uint8]:
    """RGB [height, width, 3] of `size` (height, width), turned clockwise by `rotation` degrees."""
    height, width = size if rotation % 180 == 0 else size[::-1]
    image = frame.to_ndarray(format="rgb24", width=width, height=height)
    return np.rot90(image, -rotation // 90)
