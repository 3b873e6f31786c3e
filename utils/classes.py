"""Class lists: one name a line; the line number is the class id."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from utils.errors import ConfigError, DataError, FileError
from utils.files import write_atomically
from utils.inputs import open_regular
from utils.shipped import ROOT, SHIPPED_FOLDER

IMAGENET = "imagenet_classes.txt"
CLASS_LIST = "classes.txt"
"""The class list of the annotation lists beside it."""


def read_classes(path: str | Path, warn: Callable[[str], None] | None = None) -> tuple[str, ...]:
    """Class names in file order, spaces around them removed. ``warn`` hears of blank lines, which are ignored.

    ConfigError for a missing or empty file; DataError for a name given twice or text that is not UTF-8.
    """
    if not Path(path).exists():
        raise ConfigError(f"{path}: no such class list: give a file with one class name a line")
    file, _ = open_regular(path, "class list")
    with file:
        data = file.readall()
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 (byte {error.start}): save it as UTF-8") from error
    if not lines[-1]:
        lines.pop()
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if not name:
            if warn:
                warn(f"{path}: line {number}: blank line: ignored")
        elif name in first_line:
            raise DataError(f"{path}: line {number}: {name!r}: also in line {first_line[name]}: delete one")
        else:
            first_line[name] = number
    if not first_line:
        raise ConfigError(f"{path}: holds no class: write one class name a line")
    return tuple(first_line)


def imagenet_class_names() -> tuple[str, ...]:
    """The 1000 classes that ImageNet weights know, in their order; nothing is fetched.

    Names are those of Keras' ``imagenet_class_index.json``, spaces for underscores; the two that it gives twice, crane
    and maillot, are told apart.
    """
    return read_classes(ROOT / SHIPPED_FOLDER / IMAGENET)


def classes_if_any(path: str | Path) -> tuple[str, ...]:
    """What ``read_classes`` gives; nothing where there is no such file, or none that can be used."""
    try:
        return read_classes(path)
    except (ConfigError, DataError, FileError):
        return ()


def changed_ids(path: str | Path, class_names: Sequence[str]) -> list[str]:
    """A line where ids of the class list in ``path``, if there is one, are other classes in ``class_names``."""
    pairs = zip(classes_if_any(path), class_names, strict=False)
    changed = [f"{old!r} became {new!r}" for old, new in pairs if old != new]
    if not changed:
        return []
    return [f"{path}: {', '.join(changed)}: a detector that learned the earlier list knows others by these ids"]


def write_classes(path: str | Path, class_names: Iterable[str]) -> None:
    """Writes one name a line. DataError for a name that ``read_classes`` would not give back."""
    names = list(class_names)
    for name in names:
        if not name or name != name.strip() or "\n" in name or "\r" in name or name[0] == "\ufeff":
            raise DataError(f"{path}: {name!r}: cannot be a line of a class list: rename the class")
    if len(set(names)) != len(names):
        raise DataError(f"{path}: a class name is given twice: delete one")
    write_atomically(path, "".join(f"{name}\n" for name in names))
