"""PyTorch weights files, in the layout of its releases before 1.6, read without PyTorch; nothing in them can run.

Such a file is five pickles, then the numbers. A pickle calls whatever it names. Here it finds four names, which stand
for inert things of ours, unchangeable from within a pickle; any other name ends the reading before anything is called.
"""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from utils.errors import FileError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
DTYPES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
COUNT_BYTES = 8

Array = np.ndarray[Any, np.dtype[Any]]


def read_torch_tensors(data: bytes, path: str | Path) -> dict[str, Array]:
    """Name -> tensor, in the file's order and layout, of a state dictionary that ``torch.save`` wrote.

    ``path`` is for messages. FileError for anything but whole tensors of float32 or int64.
    """
    file = io.BytesIO(data)
    try:
        magic, protocol, system, views, keys = (_TensorUnpickler(file).load() for _ in range(5))
        if (magic, protocol, system["little_endian"]) != (MAGIC, PROTOCOL, True):
            raise ValueError("another layout")
        storages = _storages(file, views, keys)
        return {name: _tensor(view, storages[view.storage]) for name, view in views.items()}
    except Exception as error:  # What a pickle can raise has no end.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileError(
            f"{path}: is not a PyTorch file of plain tensors, or damaged ({reason}): fetch it again"
        ) from error


class _Storage(NamedTuple):
    kind: str
    key: str
    size: int


class _View(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Names(dict[Any, Any]):
    """Stands for OrderedDict."""

    def __setstate__(self, state: object) -> None:
        """Drops the notes that PyTorch keeps beside the tensors; without this, a pickle could set any attribute."""


class _MakeView:
    """Stands for ``torch._utils._rebuild_tensor_v2``; a function would have attributes for a pickle to change."""

    __slots__ = ()

    def __call__(self, storage: object, offset: object, shape: object, strides: object, *_: object) -> _View:
        if not (isinstance(storage, _Storage) and isinstance(shape, tuple) and isinstance(strides, tuple)):
            raise pickle.UnpicklingError("a tensor without storage, shape or strides")
        if len(shape) != len(strides) or any(type(n) is not int or n < 0 for n in (offset, *shape, *strides)):
            raise pickle.UnpicklingError(f"a tensor of shape {shape} and strides {strides}")
        return _View(storage, offset, shape, strides)  # type: ignore[arg-type]


FOUND: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): _Names,
    ("torch._utils", "_rebuild_tensor_v2"): _MakeView(),
    **{("torch", kind): kind for kind in DTYPES},
}


class _TensorUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name; every import of a pickle comes through here."""
        if (module, name) not in FOUND:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which could run code")
        return FOUND[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        """The storage that a tensor looks into; its numbers follow after the pickles."""
        word, kind, key, _, size, shared = pid
        if (
            word != "storage"
            or kind not in DTYPES
            or type(key) is not str
            or type(size) is not int
            or shared is not None
        ):
            raise pickle.UnpicklingError(f"an unknown storage {pid}")
        return _Storage(kind, key, size)


def _storages(file: io.BytesIO, views: Any, keys: Any) -> dict[_Storage, Array]:
    """The numbers, which lie in the order of ``keys`` to the end of the file, each run after its count."""
    if not isinstance(views, _Names) or not all(type(n) is str and type(v) is _View for n, v in views.items()):
        raise ValueError("something else than tensors")
    by_key = {view.storage.key: view.storage for view in views.values()}
    if len(by_key) != len({view.storage for view in views.values()}) or sorted(by_key) != sorted(keys):
        raise ValueError("tensors and storages do not match")
    found = {}
    for storage in (by_key[key] for key in keys):
        dtype = DTYPES[storage.kind]
        count = int.from_bytes(file.read(COUNT_BYTES), "little")
        content = file.read(count * dtype.itemsize) if count == storage.size else b""
        if len(content) != storage.size * dtype.itemsize:
            raise ValueError(f"storage {storage.key} is not whole")
        found[storage] = np.frombuffer(content, dtype)
    if file.read(1):
        raise ValueError("it goes on after the last storage")
    return found


def _tensor(view: _View, numbers: Array) -> Array:
    size = math.prod(view.shape)
    last = view.offset + sum((n - 1) * stride for n, stride in zip(view.shape, view.strides, strict=True))
    if not 0 < size <= len(numbers) or last >= len(numbers):
        raise ValueError(f"a tensor of shape {view.shape} does not fit into its {len(numbers)} numbers")
    strides = [stride * numbers.itemsize for stride in view.strides]
    return np.lib.stride_tricks.as_strided(numbers[view.offset :], view.shape, strides, writeable=False)
