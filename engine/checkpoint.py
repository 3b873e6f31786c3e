"""Checkpoints: one safetensors file each, written whole or not at all, with a checksum over every byte.

The file's metadata holds ``detector`` or ``classifier`` (the spec, so nothing else is needed to rebuild it), ``info``
(epoch, step, metrics, and for training state the run's config) and ``sha256``. The checksum is that of the whole file
with its own 64 digits replaced by zeros. Tensors are named ``model/...`` and, in training checkpoints,
``optimizer/...`` and, where the run averages its weights, ``ema/...``. Nothing in the file can run code.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from nets.classifier import build_classifier_of
from nets.detector import build_detector
from nets.layers import RANDOM_STATE
from utils.classifier_config import ClassifierSpec
from utils.config import DetectorSpec
from utils.errors import FileError, did_you_mean
from utils.files import replacing, write_atomically, write_synced
from utils.run_files import find_checkpoint

FORMAT = "efficientnet-yolo3 checkpoint 1"
MAX_HEADER_BYTES = 1 << 26
PUBLISHED = ("none", "imagenet", "package")
"""Starts that are no file of the user's."""
Spec = DetectorSpec | ClassifierSpec
KINDS: dict[str, type[DetectorSpec] | type[ClassifierSpec]] = {"detector": DetectorSpec, "classifier": ClassifierSpec}
_BLANK = "0" * 64


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint file holds. ``tensors`` are NumPy arrays by name; ``info`` is plain JSON data."""

    spec: Spec
    tensors: dict[str, np.ndarray]
    info: dict[str, Any] = field(default_factory=dict)

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """The tensors below ``prefix/``, without it."""
        start = f"{prefix}/"
        return {name.removeprefix(start): value for name, value in self.tensors.items() if name.startswith(start)}

    def weights(self) -> dict[str, np.ndarray]:
        """The model's tensors to compute with: averages, where the run kept them beside what was learning."""
        return {**self.group("model"), **self.group("ema")}

    def digest(self) -> str:
        """SHA-256 over every tensor (name, type, shape, bytes) and, in training checkpoints, where the run stood.

        Equal only for equal states, whenever they were saved; the files differ even then.
        """
        digest = hashlib.sha256(json.dumps(self.info.get("position"), sort_keys=True).encode())
        for name in sorted(self.tensors):
            value = self.tensors[name]
            digest.update(f"\n{name} {value.dtype} {value.shape}\n".encode() + value.tobytes())
        return digest.hexdigest()


def save_checkpoint(path: str | Path, checkpoint: Checkpoint, previous: str | Path | None = None) -> None:
    """Writes ``checkpoint`` to ``path``. FileError (exit 4) when it cannot, and then whatever was there stays.

    What was there takes the name ``previous``, if one is given, once the new one is whole. From the second save on both
    are whole at every moment; killed during a save, ``previous`` may be a save older than usual.
    """
    metadata = {
        "format": FORMAT,
        kind_of(checkpoint.spec): json.dumps(checkpoint.spec.to_dict(), ensure_ascii=False),
        "info": json.dumps(checkpoint.info, ensure_ascii=False),
        "sha256": _BLANK,
    }
    # Unlike np.ascontiguousarray, this leaves a scalar a scalar.
    tensors = {name: np.asarray(value, order="C") for name, value in checkpoint.tensors.items()}
    content = save(tensors, metadata)
    digest = hashlib.sha256(content).hexdigest()
    content = content.replace(_field(_BLANK), _field(digest), 1)
    if previous is None or not Path(path).exists():
        write_atomically(path, content)
        return
    with replacing(previous) as second_name, replacing(path) as temporary:
        write_synced(temporary, content)
        # A link to a link would lead to the new one.
        _link(Path(os.path.realpath(path)), second_name)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads and verifies ``path``. FileError naming what is wrong: missing, not a checkpoint, truncated, damaged."""
    content = _content(Path(path))
    header = _header(content, path)
    metadata = header["__metadata__"]
    digest = metadata["sha256"]
    if hashlib.sha256(content.replace(_field(digest), _field(_BLANK), 1)).hexdigest() != digest:
        raise FileError(f"{path}: checksum: does not match: the file is damaged; use another checkpoint of the run")
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise FileError(f"{path}: {error}: the file is damaged; use another checkpoint of the run") from error
    try:
        (kind,) = KINDS.keys() & metadata.keys()
        spec = KINDS[kind].from_dict(json.loads(metadata[kind]))
    except (TypeError, KeyError, ValueError) as error:
        raise FileError(f"{path}: {error}: made by another version of this application") from error
    return Checkpoint(spec, tensors, json.loads(metadata["info"]))


def kind_of(spec: Spec) -> str:
    """What ``spec`` describes, in a word."""
    return next(kind for kind, described in KINDS.items() if isinstance(spec, described))


def detector_spec_of(checkpoint: Checkpoint, source: str | Path) -> DetectorSpec:
    """The detector that the checkpoint holds. FileError when it holds something else."""
    if isinstance(checkpoint.spec, DetectorSpec):
        return checkpoint.spec
    raise FileError(f"{source}: holds a {kind_of(checkpoint.spec)}: a detector is needed here, such as train.py makes")


def classifier_spec_of(checkpoint: Checkpoint, source: str | Path) -> ClassifierSpec:
    """The classifier that the checkpoint holds. FileError when it holds something else."""
    if isinstance(checkpoint.spec, ClassifierSpec):
        return checkpoint.spec
    kind = kind_of(checkpoint.spec)
    raise FileError(f"{source}: holds a {kind}: a classifier is needed here, such as classify.py makes")


def is_checkpoint(path: str | Path) -> bool:
    """Whether ``path`` is a file that calls itself one of our checkpoints; says nothing about damage."""
    if not Path(path).is_file():
        return False
    with Path(path).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        # The entries of the metadata come in any order, long class lists before the format too.
        return FORMAT.encode() in file.read(min(length, MAX_HEADER_BYTES))


def model_tensors(model: keras.Model) -> dict[str, np.ndarray]:
    """Every variable of the model under ``model/``: weights, BatchNorm statistics and random state."""
    return {f"model/{name}": value for name, value in _variables(model).items()}


def restore_model(model: keras.Model, tensors: dict[str, np.ndarray], source: str | Path) -> None:
    """Sets every variable from ``tensors`` (names without ``model/``). FileError unless all names and shapes agree."""
    variables = {variable.path: variable for variable in model.variables}
    odd = sorted(set(variables) ^ set(tensors))
    if odd:
        raise FileError(f"{source}: {odd[0]}: {len(odd)} tensors differ from the model's; not a checkpoint of it")
    for name, variable in variables.items():
        if tuple(variable.shape) != tensors[name].shape:
            raise FileError(f"{source}: {name}: shape {tensors[name].shape}: the model has {tuple(variable.shape)}")
    for name, variable in variables.items():
        variable.assign(tensors[name])


def starting_point(weights: str) -> tuple[Path, Checkpoint] | None:
    """The checkpoint that ``weights`` names by its file or its run; None for "none", published weights, ``.h5`` files.

    FileError for a folder without a checkpoint and for a damaged one.
    """
    if weights in PUBLISHED:
        return None
    path = Path(weights)
    if not path.exists() and (hint := did_you_mean(weights, PUBLISHED)):
        raise FileError(f"{weights}: no such weights{hint}")
    if path.is_dir() or not (path.exists() or weights.lower().endswith((".h5", ".hdf5"))):
        path = find_checkpoint(path)
    return (path, read_checkpoint(path)) if is_checkpoint(path) else None


def start_from(model: keras.Model, tensors: dict[str, np.ndarray], source: str | Path) -> None:
    """Sets every weight of ``model`` from ``tensors``, as ``restore_model`` does.

    Random state is the run's own, and which layers have any depends on ``model.stochastic_depth``.
    """
    given = {name: value for name, value in tensors.items() if RANDOM_STATE not in name}
    own = {variable.path: np.asarray(variable) for variable in model.variables if RANDOM_STATE in variable.path}
    restore_model(model, {**given, **own}, source)


def rebuild(checkpoint: Checkpoint, source: str | Path) -> keras.Model:
    """What ``checkpoint`` holds, with its weights; of a classifier the logits."""
    spec = checkpoint.spec
    model = build_detector(spec) if isinstance(spec, DetectorSpec) else build_classifier_of(spec)
    restore_model(model, checkpoint.weights(), source)
    return model


def _variables(model: keras.Model) -> dict[str, np.ndarray]:
    return {variable.path: np.asarray(variable) for variable in model.variables}


def _link(path: Path, second_name: Path) -> None:
    second_name.unlink()
    try:
        os.link(path, second_name)
    except OSError:
        # Some file systems have no links (exFAT, a few network shares).
        write_synced(second_name, path.read_bytes())


def _field(digest: str) -> bytes:
    return f'"sha256":"{digest}"'.encode()


def _content(path: Path) -> bytes:
    if path.is_dir():
        raise FileError(f"{path}: is a directory: give a checkpoint file in it, such as {path / 'best'}")
    if path.exists() and not path.is_file():
        raise FileError(f"{path}: is no regular file: give a checkpoint that train.py wrote")
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: {error.strerror}: give a checkpoint that train.py wrote") from error


def _header(content: bytes, path: str | Path) -> dict[str, Any]:
    """The JSON at the start of a safetensors file, if it is one of ours."""
    length = int.from_bytes(content[:8], "little")
    try:
        header: dict[str, Any] = json.loads(content[8 : 8 + length])
        if header["__metadata__"]["format"] == FORMAT and len(header["__metadata__"]["sha256"]) == 64:
            return header
    except (ValueError, KeyError, TypeError):
        pass
    raise FileError(f"{path}: not a checkpoint that train.py wrote, or its beginning is damaged")
