"""Decoding: any image file becomes [H, W, 3] uint8 RGB, turned as EXIF says, exactly once."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

import cv2
import numpy as np

from utils.at_work import at_work_on
from utils.config import DetectorSpec
from utils.errors import DataError, UserError
from utils.image_headers import (
    IMAGE_SUFFIXES,
    TRUNCATED,
    ImageInfo,
    Warn,
    image_format,
    jpeg_header,
    opened_by_pillow,
    pillow_orientation,
    probe,
)
from utils.inputs import open_regular
from utils.letterbox import PADDING_GREY, place
from utils.types import ImageArray

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageInfo",
    "decode_for_detector",
    "decode_image",
    "pixels_of",
    "preparing",
    "probe",
    "read_for_detector",
    "read_image",
]

MAX_FILE_BYTES = 1 << 30

_TURNS: dict[int, Callable[[ImageArray], ImageArray]] = {
    1: lambda image: image,
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.transpose(1, 0, 2),
    6: lambda image: image[::-1].transpose(1, 0, 2),
    7: lambda image: image[::-1, ::-1].transpose(1, 0, 2),
    8: lambda image: image[:, ::-1].transpose(1, 0, 2),
}
"""What makes a stored image upright, by EXIF orientation."""
_UNDOES = {5: 5, 6: 8, 7: 7, 8: 6}


def read_image(path: str | Path, ignore_exif: bool = False, warn: Warn | None = None) -> ImageArray:
    """Reads an image file: [H, W, 3] uint8 RGB.

    DataError when it is missing, no regular file, truncated, of a format we do not read, or over 100 megapixels.
    ``warn`` gets a message for a wrong extension and for an animation, of which the first frame is taken.
    """
    name = os.fspath(path)
    file, size = open_regular(path, "image")
    with file:
        # What is no image is refused before all of it is in memory.
        head = file.read(4096)
        image_format(head, name)
        if size > MAX_FILE_BYTES:
            raise DataError(f"{name}: image file of {size} bytes: over 1 GiB, make it smaller")
        data = head + file.readall() if size > len(head) else head
    return decode_image(data, name, ignore_exif, warn)


def read_for_detector(
    path: str | Path, spec: DetectorSpec, ignore_exif: bool | None = None, warn: Warn | None = None
) -> ImageArray:
    """``read_image`` as the detector of ``spec`` was trained to see photos; ``ignore_exif`` overrides that.

    DataError also for a photo too thin for its input, so that it is named here and does not fail with its whole batch.
    """
    image = read_image(path, spec.ignore_exif if ignore_exif is None else ignore_exif, warn)
    return _that_fits(image, os.fspath(path), spec)


def decode_for_detector(
    data: bytes, name: str, spec: DetectorSpec, ignore_exif: bool | None = None, warn: Warn | None = None
) -> ImageArray:
    """``read_for_detector`` for the bytes of an image file; ``name`` stands in messages."""
    image = decode_image(data, name, spec.ignore_exif if ignore_exif is None else ignore_exif, warn)
    return _that_fits(image, name, spec)


def decode_image(data: bytes, name: str, ignore_exif: bool = False, warn: Warn | None = None) -> ImageArray:
    """Decodes the bytes of an image file, as ``read_image`` does. ``name`` stands in messages."""
    kind = image_format(data[:4096], name, warn)
    if kind == "PNG" and data.rfind(b"IEND") < 0:
        raise DataError(f"{name}: {TRUNCATED}")
    if kind == "JPEG":
        header = jpeg_header(lambda offset, count: data[offset : offset + count], name)
        # OpenCV fills the missing part of a truncated JPEG with grey and says nothing.
        if data.rfind(b"\xff\xd9") < header.data_offset:
            raise DataError(f"{name}: {TRUNCATED}")
        if header.components in (1, 3):
            flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
            if image is not None:
                upright = _TURNS[1 if ignore_exif else header.orientation](image)  # type: ignore[arg-type]
                return np.ascontiguousarray(upright)
    return _decode_with_pillow(data, kind, name, ignore_exif, warn)


@contextmanager
def preparing(path: str | Path) -> Iterator[None]:
    """Makes whatever ends the thread that prepares an image file a DataError that names it.

    What is for the user already, and want of memory, stays as it is.
    """
    try:
        with at_work_on(os.fspath(path)):
            yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem:
            raise MemoryError(str(error)) from error
        raise DataError(
            f"{path}: {type(error).__name__}: {error}: ended the thread that prepared it; look at the file or leave it "
            "out"
        ) from error


def _that_fits(image: ImageArray, name: str, spec: DetectorSpec) -> ImageArray:
    place((image.shape[0], image.shape[1]), spec.input_size, spec.resize, name)
    return image


def pixels_of(image: Image, ignore_exif: bool = False) -> ImageArray:
    """[H, W, 3] uint8 RGB of an open Pillow image of any 8-bit, 16-bit or 1-bit mode, turned as its EXIF says.

    Give it as it was opened: Pillow turns a TIFF as it loads it, and once asked for its EXIF, it mixes XMP into that.
    DataError for modes I and F, whose range nobody knows, and for a file that cannot be decoded.
    """
    if 0 in image.size:
        raise DataError(f"image: {image.width}x{image.height} px: has no pixels")
    if image.mode in ("I", "F"):
        raise DataError(f"image of mode {image.mode}: scale its values to 0..255 and convert it to L or RGB")
    try:
        return _turned_pixels(image, ignore_exif)
    except OSError as error:
        raise DataError(f"image: cannot be decoded: {error}") from error


def any_pixels(image: object, spec: DetectorSpec, ignore_exif: bool) -> ImageArray:
    """RGB uint8 [H, W, 3] of a path, a Pillow image, or an array like it, grey ones too. DataError for others."""
    if isinstance(image, str | os.PathLike):
        return read_for_detector(os.fspath(image), spec, ignore_exif)
    if isinstance(image, np.ndarray):
        return _checked(image)
    if is_pillow(image):
        return pixels_of(image, ignore_exif=ignore_exif)
    raise DataError(f"image of type {type(image).__name__}: give a path, a Pillow image or an RGB uint8 array")


def is_pillow(image: object) -> TypeGuard[Image]:
    """Whether it is a Pillow image, which need not be imported for that."""
    return hasattr(image, "getexif")


def _checked(image: np.ndarray) -> ImageArray:
    if image.dtype != np.uint8:
        raise DataError(f"image array: dtype {image.dtype}: must be uint8, 0..255")
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise DataError(f"image array: shape {image.shape}: must be [height, width, 3], RGB")
    return np.ascontiguousarray(image)


def _decode_with_pillow(data: bytes, kind: str, name: str, ignore_exif: bool, warn: Warn | None) -> ImageArray:
    with opened_by_pillow(io.BytesIO(data), kind, name) as image:
        if warn and kind != "JPEG" and getattr(image, "is_animated", False):
            warn(f"{name}: holds {getattr(image, 'n_frames', 2)} frames: the first one is used")
        return _turned_pixels(image, ignore_exif)


def _turned_pixels(image: Image, ignore_exif: bool) -> ImageArray:
    orientation = pillow_orientation(image)
    image.load()
    # Pillow turns a TIFF while loading it, and no other format.
    if image.format == "TIFF":
        turn = _UNDOES.get(orientation, orientation) if ignore_exif else 1
    else:
        turn = 1 if ignore_exif else orientation
    return np.ascontiguousarray(_TURNS[turn](_rgb_pixels(image)))


def _rgb_pixels(image: Image) -> ImageArray:
    if image.mode.startswith("I;16"):
        # 65535 / 257 = 255: scaled, so that neither end of the range is lost.
        grey = np.asarray(image, np.uint16).astype(np.float32) / 257
        return np.repeat(np.rint(grey).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"), np.uint16)
        alpha = rgba[..., 3:]
        return ((rgba[..., :3] * alpha + PADDING_GREY * (255 - alpha) + 127) // 255).astype(np.uint8)
    return np.array(image.convert("RGB"))
