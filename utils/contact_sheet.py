"""Many pictures on one sheet, in rows, each under its title."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from utils.fonts import shortened_mask
from utils.types import ImageArray

PAPER = (250, 250, 250)
INK = (40, 40, 40)


def contact_sheet(
    images: Sequence[ImageArray], titles: Sequence[str] | None = None, columns: int = 4, cell_px: int = 320
) -> ImageArray:
    """Pictures of any sizes side by side, proportions kept. RGB uint8 in, one RGB uint8 picture out.

    Args:
        images: [H, W, 3] uint8 each; none gives a blank cell.
        titles: one line over each picture, shortened to fit; None leaves the line out.
        columns: pictures in a row.
        cell_px: width of a picture; its height is at most this too.
    """
    if titles is not None and len(titles) != len(images):
        raise ValueError(f"{len(titles)} titles for {len(images)} images")
    gap = max(4, cell_px // 40)
    font_px = max(10, cell_px // 22)
    columns = max(1, min(columns, len(images)))
    cells = [_fitted(image, cell_px) for image in images] or [np.full((cell_px, cell_px, 3), PAPER, np.uint8)]
    strips = []
    for start in range(0, len(cells), columns):
        row = cells[start : start + columns]
        line = [] if titles is None else [_title(text, cell_px, font_px) for text in titles[start : start + columns]]
        strips.append(_row(row, line, columns, cell_px, gap))
    return np.vstack([*strips, np.full((gap, strips[0].shape[1], 3), PAPER, np.uint8)])


def _fitted(image_rgb: ImageArray, cell_px: int) -> ImageArray:
    height, width = image_rgb.shape[:2]
    scale = min(cell_px / width, cell_px / height)
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    kind = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(image_rgb, size_wh, interpolation=kind)  # type: ignore[return-value]


def _title(text: str, width: int, font_px: int) -> ImageArray:
    mask = shortened_mask(text, font_px, width)[:, :width]
    ink = np.pad(mask, ((0, 0), (0, width - mask.shape[1])))[..., None] / 255.0
    return (np.array(PAPER) * (1 - ink) + np.array(INK) * ink).round().astype(np.uint8)


def _row(cells: Sequence[ImageArray], titles: Sequence[ImageArray], columns: int, cell_px: int, gap: int) -> ImageArray:
    title_h = titles[0].shape[0] + gap // 2 if titles else 0
    height = max(cell.shape[0] for cell in cells)
    strip = np.full((gap + title_h + height, gap + columns * (cell_px + gap), 3), PAPER, np.uint8)
    for place, cell in enumerate(cells):
        left = gap + place * (cell_px + gap)
        if titles:
            strip[gap : gap + titles[place].shape[0], left : left + cell_px] = titles[place]
        inset = left + (cell_px - cell.shape[1]) // 2
        strip[gap + title_h : gap + title_h + cell.shape[0], inset : inset + cell.shape[1]] = cell
    return strip
