"""What an image file is, read from its first bytes: format, size and EXIF orientation, without decoding it."""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, BinaryIO

from utils.errors import DataError
from utils.inputs import open_regular

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_PIXELS = 100_000_000
TRUNCATED = "is truncated, the end of the picture is missing: copy it again"
_LONG = 4
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "BMP": (".bmp", ".dib"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
}
IMAGE_SUFFIXES = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
"""Suffixes, in lower case, of the formats that are read."""

Warn = Callable[[str], None]
ReadAt = Callable[[int, int], bytes]
"""Bytes of a file from an offset, at most so many; fewer at its end."""

_ACCEPTED = "JPEG, PNG, BMP, WebP, TIFF and GIF are read"
_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
)
_REFUSED = (
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"%PDF", "PDF"),
    (b"8BPS", "Photoshop"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\1\0", "icon"),
)
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_TEXT = frozenset(b"\t\n\f\r\x1b") | frozenset(range(0x20, 0x100))


@dataclass(frozen=True)
class ImageInfo:
    """``size_hw`` as the image is shown; ``orientation`` is the EXIF value 1..8 that was applied (1: none)."""

    size_hw: tuple[int, int]
    format: str
    orientation: int = 1


@dataclass(frozen=True)
class JpegHeader:
    """The stored size, before orientation, and where the compressed data starts."""

    size_hw: tuple[int, int]
    components: int
    orientation: int
    data_offset: int


def probe(path: str | Path, ignore_exif: bool = False, warn: Warn | None = None) -> ImageInfo:
    """Format and shown size from the file's header. DataError for everything that is no image we read.

    A JPEG or PNG that breaks off is found as well, by the missing end marker.
    """
    name = os.fspath(path)
    file, size = open_regular(path, "image")
    with file:
        head = file.read(4096)
        kind = image_format(head, name, warn)
        if kind == "JPEG":
            return _probe_jpeg(file, head, size, name, ignore_exif)
        if kind == "PNG":
            _require_end(file, size, b"IEND", 8, name)
        file.seek(0)
        with opened_by_pillow(io.BufferedReader(file), kind, name) as image:
            orientation = pillow_orientation(image)
            size_hw = image.height, image.width
            # Pillow itself turns the size of a TIFF, of no other format.
            turned = orientation >= 5 and (kind == "TIFF") == ignore_exif
        return ImageInfo(size_hw[::-1] if turned else size_hw, kind, 1 if ignore_exif else orientation)


def image_format(head: bytes, name: str, warn: Warn | None = None) -> str:
    """JPEG, PNG, BMP, WEBP, TIFF or GIF from a file's first bytes, whatever its suffix says (``warn`` when it lies).

    DataError naming what it is instead.
    """
    kind = next((kind for signature, kind in _SIGNATURES if head.startswith(signature)), None)
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        kind = "WEBP"
    if kind is None:
        raise DataError(f"{name}: {_what_else(head)}")
    suffix = os.path.splitext(name)[1].lower()
    if warn and suffix and suffix not in SUFFIXES[kind]:
        warn(f"{name}: wrong extension: is a {kind} file and read as one")
    return kind


def _what_else(head: bytes) -> str:
    if not head:
        return "is empty (0 bytes): copy it again"
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand in _HEIF_BRANDS:
            return "HEIC is not supported, convert to JPEG"
        kind = "AVIF" if brand.startswith(b"avi") else "a video"
        return f"is {kind}, not supported as an image: {_ACCEPTED}"
    kind_refused = next((kind for signature, kind in _REFUSED if head.startswith(signature)), None)
    if kind_refused:
        return f"{kind_refused} is not supported, convert to PNG or JPEG: {_ACCEPTED}"
    start = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "is an HTML page, not an image: probably a failed download, fetch it again"
    if b"<svg" in start:
        return f"SVG is not supported, convert to PNG or JPEG: {_ACCEPTED}"
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not an image: run `git lfs pull`"
    if not head.translate(None, bytes(_TEXT)):
        return f"is text, not an image: {_ACCEPTED}"
    return f"is no image that can be recognised: {_ACCEPTED}"


def require_sane_size(size_hw: tuple[int, int], name: str) -> None:
    """DataError for a side of 0 px and for more than 100 megapixels."""
    height, width = size_hw
    if height < 1 or width < 1:
        raise DataError(f"{name}: size {width}x{height} px: damaged, copy it again")
    if height * width > MAX_PIXELS:
        raise DataError(f"{name}: size {width}x{height} px: over 100 megapixels, make it smaller")


def _probe_jpeg(file: BinaryIO, head: bytes, size: int, name: str, ignore_exif: bool) -> ImageInfo:
    def read_at(offset: int, count: int) -> bytes:
        if offset + count <= len(head):
            return head[offset : offset + count]
        file.seek(offset)
        return file.read(count)

    header = jpeg_header(read_at, name)
    _require_end(file, size, b"\xff\xd9", header.data_offset, name)
    orientation = 1 if ignore_exif else header.orientation
    height, width = header.size_hw
    return ImageInfo((width, height) if orientation >= 5 else (height, width), "JPEG", orientation)


def _require_end(file: BinaryIO, size: int, marker: bytes, data_offset: int, name: str) -> None:
    """Looks for the end marker in the last bytes, and further back only where a program appended something."""
    for start in (max(data_offset, size - 64), data_offset):
        file.seek(start)
        if marker in file.read(size - start):
            return
    raise DataError(f"{name}: {TRUNCATED}")


def jpeg_header(read_at: ReadAt, name: str) -> JpegHeader:
    """Walks the segments of a JPEG up to its compressed data (ITU-T T.81 annex B). DataError when they break off."""
    offset, orientation, frame = 2, 1, None
    while True:
        start = read_at(offset, 4)
        if len(start) < 4 or start[0] != 0xFF:
            raise DataError(f"{name}: is a truncated or damaged JPEG, its header breaks off: copy it again")
        code, length = start[1], int.from_bytes(start[2:4], "big")
        if code == 0xFF:
            offset += 1
        elif code == 0x01 or 0xD0 <= code <= 0xD8:
            offset += 2
        elif code == 0xDA:
            break
        else:
            if code == 0xE1 and orientation == 1:
                orientation = _exif_orientation(read_at(offset + 4, length - 2)) if length > 2 else 1
            elif 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):
                frame = read_at(offset + 4, 6)
            offset += 2 + length
    if frame is None or len(frame) < 6:
        raise DataError(f"{name}: is a damaged JPEG, its size is missing: copy it again")
    precision, height, width, components = struct.unpack(">BHHB", frame)
    if precision != 8:
        raise DataError(f"{name}: JPEG of {precision} bits a channel is not supported, convert to 8 bits")
    require_sane_size((height, width), name)
    return JpegHeader((height, width), components, orientation, offset)


def _exif_orientation(segment: bytes) -> int:
    """Tag 0x0112 of the first directory of an APP1 segment (EXIF 2.3, 4.6); 1 where there is none or it is broken."""
    order = {b"II": "<", b"MM": ">"}.get(segment[6:8])
    if segment[:6] != b"Exif\0\0" or order is None or len(segment) < 16:
        return 1
    directory = 6 + struct.unpack_from(order + "I", segment, 10)[0]
    if directory + 2 > len(segment):
        return 1
    (count,) = struct.unpack_from(order + "H", segment, directory)
    for entry in range(directory + 2, min(directory + 2 + 12 * count, len(segment) - 11), 12):
        tag, kind = struct.unpack_from(order + "HH", segment, entry)
        if tag == 0x0112:
            (value,) = struct.unpack_from(order + ("I" if kind == _LONG else "H"), segment, entry + 8)
            return value if 1 <= value <= 8 else 1
    return 1


@cache
def _pillow() -> ModuleType:
    """Pillow, loaded when the first image needs it; most are JPEGs and do not."""
    from PIL import Image

    # Our own limit stands in for its size warning, and what it warns of in damaged files is decided by the outcome.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    return Image


@contextmanager
def opened_by_pillow(file: BinaryIO, kind: str, name: str) -> Iterator[Image]:
    """The image with its header read and checked; what Pillow raises inside the block becomes DataError."""
    pillow = _pillow()
    try:
        with pillow.open(file, formats=(kind, "MPO") if kind == "JPEG" else (kind,)) as image:
            require_sane_size((image.height, image.width), name)
            if image.mode in ("F", "I"):
                raise DataError(f"{name}: pixels are floats or 32-bit integers: not supported, convert to 8 or 16 bits")
            yield image
    except DataError:
        raise
    except pillow.UnidentifiedImageError as error:
        unusual = " or holds pixels of a kind that is not read, such as floats: convert it to 8 or 16 bits, or"
        problem = f"is a truncated or damaged {kind} file{unusual if kind == 'TIFF' else ':'} copy it again"
        raise DataError(f"{name}: {problem}") from error
    except pillow.DecompressionBombError as error:
        raise DataError(f"{name}: over 100 megapixels, make it smaller") from error
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, LookupError, TypeError, OverflowError) as error:
        raise DataError(f"{name}: is a truncated or damaged {kind} file ({error}): copy it again") from error


def pillow_orientation(image: Image) -> int:
    """EXIF orientation 1..8 of an image that is open and not loaded yet."""
    # Where EXIF says nothing, Pillow would ask XMP, which nobody else does.
    hidden = [(name, image.info.pop(name)) for name in ("xmp", "XML:com.adobe.xmp") if name in image.info]
    value = image.getexif().get(0x0112, 1)
    image.info.update(hidden)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
