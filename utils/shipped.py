"""Files that come with the application, found from whatever folder it is called."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHIPPED_FOLDER = "model_data"


def own_or_shipped(path: str | Path) -> Path:
    """``path`` as given, or, where there is no such file, the one of that name below the application's model_data."""
    given = Path(path)
    shipped = ROOT / given
    use_shipped = not given.exists() and given.parts[:1] == (SHIPPED_FOLDER,) and shipped.exists()
    return shipped if use_shipped else given
