"""A window that shows results, through matplotlib: the OpenCV that is installed has no windows."""

from __future__ import annotations

import os
import sys
from typing import Any

from utils.types import ImageArray


class Viewer:
    """One window. Made by ``open_viewer``."""

    def __init__(self, pyplot: Any) -> None:
        self._pyplot = pyplot
        self._figure = pyplot.figure("detections")
        self._axes = self._figure.add_axes((0, 0, 1, 0.95))
        self._axes.axis("off")
        self._shown: Any = None
        self._key = ""
        self._figure.canvas.mpl_connect("key_press_event", self._pressed)

    def show(self, image_rgb: ImageArray, title: str, wait: bool) -> bool:
        """Shows a picture; with ``wait`` until a key is pressed. False once q was pressed or the window closed."""
        if not self._pyplot.fignum_exists(self._figure.number):
            return False
        if self._shown is None or self._shown.get_array().shape != image_rgb.shape:
            self._axes.clear()
            self._axes.axis("off")
            self._shown = self._axes.imshow(image_rgb)
        else:
            self._shown.set_data(image_rgb)
        self._axes.set_title(title)
        self._key = ""
        self._figure.canvas.draw_idle()
        if wait:
            self._pyplot.waitforbuttonpress()
        else:
            self._pyplot.pause(0.001)
        return self._key != "q" and bool(self._pyplot.fignum_exists(self._figure.number))

    def close(self) -> None:
        """Closes the window."""
        self._pyplot.close(self._figure)

    def _pressed(self, event: Any) -> None:
        self._key = event.key or ""


def open_viewer() -> Viewer | str:
    """A window, or why there is none."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "there is no display here"
    import matplotlib
    from matplotlib import pyplot

    backend = matplotlib.get_backend().lower()  # matplotlib tries what is installed and ends with agg
    if backend in ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template"):
        return "matplotlib has no window toolkit here: install PyQt6 or tkinter"
    try:
        return Viewer(pyplot)
    except (ImportError, RuntimeError, OSError) as error:  # a display that is named but not reachable
        return f"no window opens: {error}"
