"""Text in any script as a coverage mask, from whichever font has the letters.

DejaVu Sans comes with matplotlib: Latin, Greek, Cyrillic, Arabic, Hebrew and more. OpenCV carries a font with Chinese,
Japanese and Korean. What neither has is looked for among the fonts of the system.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache
from itertools import groupby
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from utils.types import ImageArray

MISSING = "\u25a1"
"""Stands for a character that no font has: a hollow square."""
ELLIPSIS = "\u2026"
_PROBE_PX = 24
_NOT_A_CHARACTER = "\uffff"


class Face(Protocol):
    """A font at any size."""

    def has(self, character: str) -> bool:
        """Whether the font can draw it."""
        ...

    def width(self, text: str, size_px: int) -> int:
        """How far ``text`` reaches."""
        ...

    def draw(self, canvas: Image.Image, x: int, baseline: int, text: str, size_px: int) -> None:
        """Draws ``text`` in white on the grey-scale ``canvas``."""
        ...


class FileFace:
    """A TrueType or OpenType file, drawn by Pillow (which shapes Arabic and turns Hebrew round)."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._missing = self._probe(_NOT_A_CHARACTER)

    def has(self, character: str) -> bool:
        """True where the drawing differs from the one for a missing glyph."""
        return self._probe(character) not in (self._missing, None)

    def width(self, text: str, size_px: int) -> int:
        """Advance width in pixels."""
        return int(np.ceil(_load(self._path, size_px).getlength(text)))

    def draw(self, canvas: Image.Image, x: int, baseline: int, text: str, size_px: int) -> None:
        """Draws on the baseline."""
        ImageDraw.Draw(canvas).text((x, baseline), text, fill=255, font=_load(self._path, size_px), anchor="ls")

    def _probe(self, character: str) -> tuple[tuple[int, int], bytes] | None:
        mask = _load(self._path, _PROBE_PX).getmask(character)
        return (mask.size, bytes(mask)) if mask.getbbox() else None


class OpenCvFace:
    """The font inside OpenCV that has Chinese, Japanese and Korean."""

    def __init__(self) -> None:
        self._face = cv2.FontFace("uni")
        self._missing = self._probe("?")

    def has(self, character: str) -> bool:
        """True where the drawing differs from the question mark OpenCV puts for a missing glyph."""
        return character == "?" or self._probe(character) != self._missing

    def width(self, text: str, size_px: int) -> int:
        """How far OpenCV's pen gets."""
        canvas = np.zeros((1, 2 * size_px * (len(text) + 1), 3), np.uint8)
        pen, _ = cv2.putText(canvas, text, (0, size_px), (255, 255, 255), self._face, size_px)
        return int(pen[0])

    def draw(self, canvas: Image.Image, x: int, baseline: int, text: str, size_px: int) -> None:
        """Draws on the baseline."""
        pixels = cv2.cvtColor(np.asarray(canvas), cv2.COLOR_GRAY2RGB)
        # OpenCV breaks lines at the canvas' edge, so it gets one that the text cannot reach.
        wide = cv2.copyMakeBorder(pixels, 0, 0, 0, 2 * size_px, cv2.BORDER_CONSTANT)
        cv2.putText(wide, text, (x, baseline), (255, 255, 255), self._face, size_px)
        canvas.paste(Image.fromarray(wide[:, : canvas.width, 0].copy()))

    def _probe(self, character: str) -> bytes:
        canvas = np.zeros((2 * _PROBE_PX, 2 * _PROBE_PX, 3), np.uint8)
        cv2.putText(canvas, character, (0, _PROBE_PX), (255, 255, 255), self._face, _PROBE_PX)
        return canvas.tobytes()


@lru_cache(maxsize=1024)
def text_mask(text: str, size_px: int) -> ImageArray:
    """Coverage 0..255 of one line of text, [line height, text width] uint8; the height depends on ``size_px`` alone."""
    ascent, descent = _load(_default_path(), size_px).getmetrics()
    runs = _runs(text)
    widths = [face.width(run, size_px) for face, run in runs]
    canvas = Image.new("L", (max(1, sum(widths)), ascent + descent))
    x = 0
    for (face, run), width in zip(runs, widths, strict=True):
        face.draw(canvas, x, ascent, run, size_px)
        x += width
    mask = np.asarray(canvas).copy()
    mask.flags.writeable = False
    return mask


@lru_cache(maxsize=1024)
def shortened_mask(text: str, size_px: int, max_width: int) -> ImageArray:
    """``text_mask`` of ``text``, cut with an ellipsis where it is wider than ``max_width`` pixels."""
    mask = text_mask(text, size_px)
    kept = len(text)
    while mask.shape[1] > max_width and kept > 1:
        kept = min(kept - 1, max(1, int(kept * max_width / mask.shape[1])))
        mask = text_mask(text[:kept].rstrip() + ELLIPSIS, size_px)
    return mask if mask.shape[1] <= max_width else mask[:, : max(1, max_width)]


def missing_characters(text: str) -> str:
    """The characters of ``text`` that no font here can draw, each once; they show as hollow squares."""
    return "".join(dict.fromkeys(c for c in text if c.isprintable() and _face_for(c) is None))


def missing_note(names: Iterable[str]) -> str:
    """What to tell the user where names hold letters that no font here can draw; empty where all is well."""
    missing = missing_characters("".join(names))
    if not missing:
        return ""
    return (
        f"no font here has {missing}: labels show squares or the number of the class; "
        "install a font for these letters, such as one of the Noto family"
    )


def _runs(text: str) -> list[tuple[Face, str]]:
    """Splits text into stretches of one font, leaving out what is not meant to be seen."""
    chosen: list[tuple[Face, str]] = []
    for character in text:
        category = unicodedata.category(character)
        if category in ("Cc", "Zl", "Zp"):
            character = " "
        face = _face_for(character)
        if chosen and (category in ("Cf", "Mn", "Me", "Mc") or character == " "):
            # Joiners and accents belong to the letter before them.
            if category == "Cf" or (face is None and category == "Mn"):
                continue
            face = chosen[-1][0]
        elif face is None:
            character, face = MISSING, _default_face()
        chosen.append((face, character))
    grouped = groupby(chosen, key=lambda pair: pair[0])
    return [(face, "".join(character for _, character in run)) for face, run in grouped]


@lru_cache(maxsize=4096)
def _face_for(character: str) -> Face | None:
    if character.isspace() or _default_face().has(character):
        return _default_face()
    if _opencv_face().has(character):
        return _opencv_face()
    return next((face for face in _system_faces() if face.has(character)), None)


@cache
def _default_path() -> Path | None:
    """DejaVu Sans of matplotlib, found without importing it; None means the font inside Pillow."""
    spec = importlib.util.find_spec("matplotlib")
    places = (spec.submodule_search_locations if spec else None) or []
    files = (Path(place) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf" for place in places)
    return next((file for file in files if file.is_file()), None)


@lru_cache(maxsize=64)
def _load(path: Path | None, size_px: int) -> ImageFont.FreeTypeFont:
    if path is None:
        font = ImageFont.load_default(size_px)
        assert isinstance(font, ImageFont.FreeTypeFont)
        return font
    return ImageFont.truetype(str(path), size_px)


@cache
def _default_face() -> Face:
    return FileFace(_default_path())


@cache
def _opencv_face() -> Face:
    return OpenCvFace()


@cache
def _system_faces() -> tuple[Face, ...]:
    """Every usable font of the system, searched only when a character is found nowhere else."""
    faces: list[Face] = []
    for folder in _font_folders():
        for path in sorted(folder.rglob("*.[ot]t[fc]")):
            try:
                faces.append(FileFace(path))
            except OSError:  # a bitmap-only or damaged font: the next may do
                continue
    return tuple(faces)


def _font_folders() -> tuple[Path, ...]:
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        return (Path(os.environ.get("WINDIR", r"C:\Windows")) / "Fonts",)
    if sys.platform == "darwin":
        return Path("/System/Library/Fonts"), Path("/Library/Fonts"), home / "Library" / "Fonts"
    return Path("/usr/share/fonts"), Path("/usr/local/share/fonts"), home / ".fonts", home / ".local/share/fonts"
