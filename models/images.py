"""Still images as frames: PNG, JPEG and WebP, their sizes checked before anything is decoded."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from models.containers import Limits, Source, check_frame_size, readable
from models.errors import UndecodableMedia, UnsupportedMedia

EXIF_ORIENTATION = 0x0112
ON_ITS_SIDE = {5, 6, 7, 8}  # values of the orientation that swap width and height
HEADER = 32  # bytes that hold the signature, and the size of a PNG or a WebP


def image_size(source: Source, limits: Limits) -> tuple[int, int]:
    """Height and width as the image is to be seen."""
    with readable(source) as file, parsed(file, limits) as image:
        return size_of(image)


def read_images(sources: Sequence[Source], size: tuple[int, int], limits: Limits) -> NDArray[np.uint8]:
    """RGB [n, height, width, 3]; all must have the `size` (height, width) of the clip's first image."""
    images = np.empty((len(sources), *size, 3), np.uint8)
    for slot, source in zip(images, sources, strict=True):
        image = read_image(source, limits)
        if image.shape[:2] != size:
            raise UndecodableMedia(
                f"A frame has {image.shape[1]} x {image.shape[0]} pixels, the first {size[1]} x {size[0]}: "
                "all frames of a clip must have one size."
            )
        slot[:] = image
    return images


def read_image(source: Source, limits: Limits) -> NDArray[np.uint8]:
    """RGB [height, width, 3]; transparency is dropped, 16 bits become 8, EXIF's orientation is applied."""
    with readable(source) as file, parsed(file, limits) as image:
        try:
            if image.mode.startswith("I;16"):
                grey = (np.asarray(image) >> 8).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        except (OSError, ValueError, SyntaxError, struct.error, MemoryError) as error:
            raise UndecodableMedia("An image cannot be decoded: it is cut short or damaged.") from error


def parsed(file: BinaryIO, limits: Limits) -> ImageFile.ImageFile:
    """The image, its header read by the one reader for its signature and its size within the limits."""
    head = file.read(HEADER)
    file.seek(0)
    try:
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack_from(">II", head, 16)
            check_frame_size(width, height, limits)
            image: ImageFile.ImageFile = PngImagePlugin.PngImageFile(file)
        elif head.startswith(b"\xff\xd8\xff"):
            image = JpegImagePlugin.JpegImageFile(file)
        elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            check_frame_size(
                *webp_size(head), limits
            )  # before the reader, which allocates the canvas at once
            image = WebPImagePlugin.WebPImageFile(file)
        else:
            raise UnsupportedMedia("A frame is neither a PNG nor a JPEG nor a WebP image.")
        check_frame_size(*image.size, limits)
        return image
    except (OSError, ValueError, SyntaxError, struct.error, IndexError, MemoryError) as error:
        raise UndecodableMedia("An image cannot be read: its header is cut short or damaged.") from error


def webp_size(head: bytes) -> tuple[int, int]:
    """Width and height by the first chunk: extended, lossless or lossy."""
    kind = head[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", head, 26)
    return width & 0x3FFF, height & 0x3FFF


def size_of(image: Image.Image) -> tuple[int, int]:
    """Height and width after EXIF's orientation."""
    width, height = image.size
    return (width, height) if image.getexif().get(EXIF_ORIENTATION) in ON_ITS_SIDE else (height, width)
