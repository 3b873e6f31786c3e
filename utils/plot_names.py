"""Class names in plots, in any script.

matplotlib's own font has no Chinese, Japanese or Korean and does not join Arabic letters; such names are put in as
pictures from utils.fonts, which needs no font of the system.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.draw import drawable_name
from utils.fonts import text_mask
from utils.types import FloatArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#22262b"
LONGEST = 26
_OVERSAMPLING = 4
_FIRST_JOINED_SCRIPT = 0x0590
"""Hebrew, and after it the scripts that matplotlib would not lay out, or has no letters of."""


def write_name(
    axes: Axes,
    name: str,
    class_id: int,
    xy: tuple[float, float],
    coordinates: Any,
    *,
    offset_pt: tuple[float, float] = (0, 0),
    align: tuple[float, float] = (0, 0.5),
    size_pt: float = 9,
    upright: bool = False,
) -> None:
    """Puts a name at ``xy``, given in matplotlib ``coordinates``, moved by ``offset_pt``.

    ``align`` is the point of the text that lies there, (0, 0) being its lower left; ``upright`` turns it by 90 degrees.
    """
    text = shortened(drawable_name(name, class_id))
    if is_plain(text):
        axes.annotate(
            text,
            xy,
            xycoords=coordinates,
            xytext=offset_pt,
            textcoords="offset points",
            ha=("left", "center", "right")[round(2 * align[0])],
            va=("bottom", "center", "top")[round(2 * align[1])],
            size=size_pt,
            rotation=90 if upright else 0,
            color=INK,
            parse_math=False,
            annotation_clip=False,
        )
        return
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    picture = OffsetImage(_picture(text, size_pt, upright), zoom=1 / _OVERSAMPLING)
    box = AnnotationBbox(
        picture,
        xy,
        xycoords=coordinates,
        xybox=offset_pt,
        boxcoords="offset points",
        box_alignment=align,
        frameon=False,
        pad=0,
        annotation_clip=False,
    )
    axes.add_artist(box)


def is_plain(text: str) -> bool:
    """Whether matplotlib's own font writes it as it should be."""
    return all(ord(character) < _FIRST_JOINED_SCRIPT or character == "…" for character in text)


def shortened(name: str, longest: int = LONGEST) -> str:
    """The name, its middle left out where it is wider than ``longest`` letters; a Chinese one counts as two."""
    if _width(name) <= longest:
        return name
    head, tail = "", ""
    for character in name:
        if _width(head + character) > longest * 0.6:
            break
        head += character
    for character in reversed(name):
        if _width(head + character + tail) > longest - 1:
            break
        tail = character + tail
    return f"{head}…{tail}"


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _picture(text: str, size_pt: float, upright: bool) -> FloatArray:
    """[H, W, 4] in 0..1: ``INK``, as opaque as the letters cover it."""
    from matplotlib.colors import to_rgb

    mask = text_mask(text, round(size_pt * _OVERSAMPLING)) / 255
    picture = np.concatenate([np.broadcast_to(to_rgb(INK), (*mask.shape, 3)), mask[..., None]], axis=-1)
    return np.rot90(picture) if upright else picture
