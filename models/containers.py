"""Opening a clip safely: its first bytes say what it is, its header what it promises, then libav reads it.

libav guesses a format from content, and some of its formats (playlists, image sequences, filter graphs) open
other files and addresses. So it is never asked to guess: the first bytes choose one demuxer, and that demuxer
reads from an open file, may open nothing else and may use only the decoders listed here.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import BinaryIO

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Discard, Disposition, Stream
from av.video.stream import VideoStream

from models.errors import MediaTooLarge, UndecodableMedia, UnsupportedMedia
from models.frame_sizes import avi_sizes, matroska_sizes
from models.mp4_boxes import check_boxes

Source = Path | bytes

# fmt: off
VIDEO_CODECS = frozenset({
    "h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "mpeg1video", "mpeg2video", "h263", "theora", "mjpeg",
    "prores", "ffv1", "png", "rawvideo",
})
AUDIO_CODECS = frozenset({
    "aac", "mp1", "mp2", "mp3", "opus", "vorbis", "flac", "alac", "ac3", "eac3", "adpcm_ima_wav",
    "adpcm_ms", "pcm_u8", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le", "pcm_s32be",
    "pcm_f32le", "pcm_f32be", "pcm_f64le", "pcm_f64be", "pcm_alaw", "pcm_mulaw",
})
# fmt: on
# libav's own names of the decoders behind these codecs, where they differ.
DECODERS = VIDEO_CODECS | AUDIO_CODECS | {"libdav1d", "mp1float", "mp2float", "mp3float"}
CONTAINERS = "MP4, MOV, WebM, MKV, AVI, MPEG-TS, Ogg, WAV, FLAC, MP3 and AAC"
IMAGES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")  # PNG and JPEG

SNIFFED = 4096  # bytes at the start of a file that decide what it is
TS_PACKET = 188
READ_AHEAD = 1 << 17  # bytes that libav asks of Python at a time
MP4_FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"uuid"}


@dataclass(frozen=True)
class Limits:
    """What a clip may be at most; a clip beyond one of them is refused before it is decoded."""

    bytes_: int = 256 * 1024 * 1024
    pixels: int = 4096 * 4096  # of one frame
    duration: float = 7200.0  # seconds
    frames: int = 7200  # sampled from one clip
    tracks: int = 16
    index: int = 2_000_000  # frames and audio packets that the header of a file may promise: 48 MB in libav
    key_frame_distance: int = 3000  # frames from a key frame to a sampled one: all of these must be decoded
    audio_rate: int = 384_000  # hertz
    channels: int = 32


@contextmanager
def opened(source: Source, limits: Limits) -> Iterator[InputContainer]:
    """The container, open for reading; whatever libav finds wrong while it is open is our own exception."""
    with readable(source) as file:
        size = file.seek(0, io.SEEK_END)
        if size > limits.bytes_:
            raise MediaTooLarge("size", limits.bytes_, size, "bytes")
        demuxer = sniff(file, size)
        for width, height in promised_sizes(file, size, demuxer, limits):
            check_frame_size(width, height, limits)
        file.seek(0)
        with (
            libav_errors(),
            av.open(
                file,
                mode="r",
                format=demuxer,
                options={"max_pixels": str(limits.pixels), "threads": "1"},
                container_options={
                    "codec_whitelist": ",".join(sorted(DECODERS)),
                    "protocol_whitelist": "none",
                },
                metadata_errors="replace",
                buffer_size=READ_AHEAD,
            ) as container,
        ):
            if len(container.streams) > limits.tracks:
                raise MediaTooLarge("number of tracks", limits.tracks, len(container.streams), "tracks")
            yield container


@contextmanager
def readable(source: Source) -> Iterator[BinaryIO]:
    """The bytes of a source as a file. Devices and pipes are refused: they may never end, or never begin."""
    try:
        with io.BytesIO(source) if isinstance(source, bytes) else regular(Path(source)).open("rb") as file:
            yield file
    except OSError as error:
        raise UndecodableMedia(f"The media file cannot be opened: {error.strerror}.") from error


def regular(path: Path) -> Path:
    """The path itself, if it leads to an ordinary file."""
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a null character
        raise UndecodableMedia("The media file cannot be opened: its name is none.") from error
    if S_ISDIR(mode):
        raise UndecodableMedia("The media file cannot be opened: it is a directory.")
    if not S_ISREG(mode):
        raise UndecodableMedia("The media file cannot be opened: it is no ordinary file.")
    return path


@contextmanager
def libav_errors() -> Iterator[None]:
    """libav's exceptions as ours. Its bindings raise ValueError and its kin for values no sane file holds."""
    try:
        yield
    except (av.error.FFmpegError, ValueError, ArithmeticError) as error:
        reason = getattr(error, "strerror", None) or "a value in it makes no sense"
        raise UndecodableMedia(f"The media cannot be decoded: {reason}.") from error
    except MemoryError as error:
        raise UndecodableMedia(
            "The media cannot be decoded: it asks for more memory than there is."
        ) from error


def sniff(file: BinaryIO, size: int) -> str:
    """The demuxer for a file, by its first bytes: the name that the client gave it does not count."""
    if not size:
        raise UndecodableMedia("The media file is empty: 0 bytes came. Send the whole file.")
    head = at(file, 0)
    if head.startswith(b"ID3"):
        # A tag of 28-bit length before MP3, AAC or FLAC.
        length = sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=False))
        head = at(file, 10 + length)
        return elementary(head) or "mp3"
    if head.startswith(b"RIFF") and head[8:12] in {b"AVI ", b"WAVE"}:
        return "avi" if head[8:12] == b"AVI " else "wav"
    if head[4:8] in MP4_FIRST_BOXES:
        return "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head.startswith(b"OggS"):
        return "ogg"
    if head[0] == 0x47 and all(byte == 0x47 for byte in head[::TS_PACKET]) and size >= TS_PACKET:
        return "mpegts"
    demuxer = elementary(head)
    if demuxer is None:
        if head.startswith(IMAGES):
            raise UnsupportedMedia("This is a still image: send one or more as `frames[]`, with `audio`.")
        raise UnsupportedMedia(
            f"The content is of none of the kinds that are accepted, whatever its name says: {CONTAINERS}."
        )
    return demuxer


def elementary(head: bytes) -> str | None:
    """The demuxer of sound without a container, by the sync word of its first frame."""
    if head.startswith(b"fLaC"):
        return "flac"
    if len(head) > 3 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        layer = head[1] >> 1 & 3
        if layer == 0:
            return "aac" if head[1] & 0xF0 == 0xF0 else None
        return "mp3" if head[1] & 0x18 != 0x08 and head[2] & 0xF0 != 0xF0 else None
    return None


def at(file: BinaryIO, position: int) -> bytes:
    """Some bytes from `position` on."""
    file.seek(position)
    return file.read(SNIFFED)


def promised_sizes(file: BinaryIO, size: int, demuxer: str, limits: Limits) -> Iterable[tuple[int, int]]:
    """Width and height of frames by the header; an MP4's other promises are checked along the way."""
    if demuxer == "mov":
        return check_boxes(file, size, limits.tracks, limits.index)
    if demuxer == "avi":
        return avi_sizes(file, size)
    return matroska_sizes(file, size) if demuxer == "matroska" else ()


def check_frame_size(width: int, height: int, limits: Limits) -> None:
    """Refuse a frame with more pixels than the limit."""
    if width * height > limits.pixels:
        raise MediaTooLarge("frame size", limits.pixels, width * height, "pixels")


def video_stream(container: InputContainer, limits: Limits) -> VideoStream | None:
    """The video track, checked against the limits; a picture of a record's cover is none."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            check_codec(stream, "video", VIDEO_CODECS)
            check_frame_size(stream.codec_context.width, stream.codec_context.height, limits)
            return stream
    return None


def audio_stream(container: InputContainer, limits: Limits) -> AudioStream | None:
    """The first audio track, checked against the limits."""
    for stream in container.streams.audio:
        check_codec(stream, "audio", AUDIO_CODECS)
        rate, channels = stream.codec_context.sample_rate, stream.codec_context.channels
        if not rate or not channels:
            raise UndecodableMedia("The audio track does not say its sample rate or its channels.")
        if rate > limits.audio_rate:
            raise MediaTooLarge("audio sample rate", limits.audio_rate, rate, "Hz")
        if channels > limits.channels:
            raise MediaTooLarge("number of audio channels", limits.channels, channels, "channels")
        return stream
    return None


def check_codec(stream: Stream, kind: str, allowed: frozenset[str]) -> None:
    """Refuse a codec outside the allow-list, by its name."""
    name = codec_name(stream)
    if name not in allowed:
        codec = "an unknown codec" if name is None else f"the codec '{name}'"
        raise UnsupportedMedia(f"The {kind} track uses {codec}, which is not supported.")


def codec_name(stream: Stream) -> str | None:
    """The codec's name, whichever decoder libav has for it; None where it has none."""
    # libav has no decoder, hence no context, for a codec that it does not know.
    context = stream.codec_context
    return context.codec.canonical_name if context else None


def focus(container: InputContainer, stream: Stream) -> None:
    """Read packets of this track only; to be followed by a seek."""
    for other in container.streams:
        other.discard = Discard.default if other is stream else Discard.all
