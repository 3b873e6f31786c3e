"""A PyTorch file without PyTorch, and the things a pickle would do if it were let."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from nets import torch_file
from nets.torch_file import FOUND, read_torch_tensors
from tests.lite0_oracle import packaged_file
from utils.errors import FileError

PATH = "weights.pth"


@pytest.fixture(scope="module")
def content() -> bytes:
    return packaged_file().read_bytes()


@pytest.fixture(scope="module")
def prologue(content: bytes) -> bytes:
    """The three pickles before that of the tensors."""
    return content[: content.index(b"ccollections\nOrderedDict") - 2]


def storage(key: str = "7", size: int = 6, kind: str = "FloatStorage", word: str = "storage") -> bytes:
    """What stands in a pickle for the numbers of a tensor."""
    return f"(V{word}\nctorch\n{kind}\nV{key}\nVcpu\nI{size}\nNtQ".encode()


def tensor(view: str = "I0\n(I2\nI3\nt(I3\nI1\nt", numbers: bytes = storage()) -> bytes:
    """A pickled call of what PyTorch calls to make one; ``view`` is offset, shape and strides."""
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + numbers + view.encode() + b"I00\nccollections\nOrderedDict\n)RtR"


def states(**values: bytes) -> bytes:
    items = b"".join(b"V" + name.encode() + b"\n" + value + b"s" for name, value in values.items())
    return b"\x80\x02ccollections\nOrderedDict\n)R" + items + b"."


def numbers(*values: float, count: int | None = None) -> bytes:
    return (len(values) if count is None else count).to_bytes(8, "little") + np.array(values, "<f4").tobytes()


KEYS = pickle.dumps(["7"], 2)
SIX = numbers(0, 1, 2, 3, 4, 5)


def test_a_tensor_looks_into_its_numbers_through_offset_shape_and_strides(prologue: bytes) -> None:
    transposed, tail, scalar = "I0\n(I3\nI2\nt(I1\nI3\nt", "I4\n(I2\nt(I1\nt", "I5\n))"
    file = prologue + states(a=tensor(), b=tensor(transposed), c=tensor(tail), d=tensor(scalar)) + KEYS + SIX
    found = read_torch_tensors(file, PATH)
    expected = {"a": [[0, 1, 2], [3, 4, 5]], "b": [[0, 3], [1, 4], [2, 5]], "c": [4, 5], "d": 5}
    assert {name: value.tolist() for name, value in found.items()} == expected
    assert {value.dtype for value in found.values()} == {np.dtype(np.float32)}


def test_the_package_is_read_as_pytorch_reads_it(content: bytes) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch, the oracle, is for development only")
    expected = torch.load(packaged_file(), weights_only=True)
    found = read_torch_tensors(content, PATH)
    assert list(found) == list(expected)
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name].numpy(), err_msg=name)


def test_pytorch_is_not_needed(content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # makes every import of it fail
    # 49 convolutions, 49 batch normalizations of four tensors and a counter, weight and bias of the classification
    assert len(read_torch_tensors(content, PATH)) == 49 + 49 * 5 + 2


@pytest.mark.parametrize(
    ("states_", "rest"),
    [
        (states(a=tensor("I1\n(I2\nI3\nt(I3\nI1\nt")), KEYS + SIX),  # reaches one beyond the end
        (states(a=tensor("I0\n(I2\nI3\nt(I9\nI1\nt")), KEYS + SIX),
        (states(a=tensor("I-1\n(I2\nt(I1\nt")), KEYS + SIX),
        (states(a=tensor("I0\n(I-2\nt(I1\nt")), KEYS + SIX),
        (states(a=tensor("I5\n(I2\nt(I-1\nt")), KEYS + SIX),
        (states(a=tensor("I0\n(I1000000\nI1000000\nt(I0\nI0\nt")), KEYS + SIX),  # a terabyte from six numbers
        (states(a=tensor("I0\n(I0\nt(I1\nt")), KEYS + SIX),
        (states(a=tensor("I0\n(I2\nI3\nt(I1\nt")), KEYS + SIX),
        (states(a=tensor("F0.5\n(I2\nt(I1\nt")), KEYS + SIX),
        (states(a=tensor("I0\nVshape\n(I1\nt")), KEYS + SIX),
        (states(a=tensor(numbers=b"Vnumbers\n")), KEYS + SIX),
        (states(a=tensor(numbers=storage(word="module"))), KEYS + SIX),
        (states(a=tensor(numbers=storage(kind="LongStorage"))), KEYS + SIX),  # 8 bytes each: not all are there
        (states(a=tensor(numbers=storage(size=7))), KEYS + SIX),
        (states(a=tensor(), b=tensor(numbers=storage(size=7))), KEYS + SIX),
        (states(a=tensor()), KEYS + numbers(0, 1, 2, count=6)),
        (states(a=tensor()), KEYS + numbers(0, count=2**64 - 1)),
        (states(a=tensor()), KEYS + SIX + b"\0"),
        (states(a=tensor()), pickle.dumps(["7", "8"], 2) + SIX + SIX),
        (states(a=tensor()), pickle.dumps([], 2)),
        (states(a=b"I1\n"), KEYS + SIX),
        (states(a=states(b=tensor())[2:-1]), KEYS + SIX),
        (pickle.dumps({}, 2), pickle.dumps([], 2)),
        (pickle.dumps(None, 2), KEYS),
        (b"", b""),
        (b"PK\x03\x04", b""),
    ],
)
def test_what_does_not_fit_together_is_refused(prologue: bytes, states_: bytes, rest: bytes) -> None:
    with pytest.raises(FileError, match=r"weights\.pth: is not a PyTorch file of plain tensors, or damaged"):
        read_torch_tensors(prologue + states_ + rest, PATH)


def test_another_layout_is_refused(prologue: bytes) -> None:
    big_endian = prologue.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89")
    other_protocol = prologue.replace(b"\x80\x02M\xe9\x03.", b"\x80\x02M\xea\x03.")
    for start in (big_endian, other_protocol):
        assert start != prologue
        with pytest.raises(FileError, match="another layout"):
            read_torch_tensors(start + states(a=tensor()) + KEYS + SIX, PATH)


@pytest.mark.parametrize("length", [0, 1, 14, 100, 137, 30_000, 42_000, 43_000, 1_000_000, -1])
def test_a_part_of_the_file_is_refused(content: bytes, length: int) -> None:
    with pytest.raises(FileError, match="damaged"):
        read_torch_tensors(content[:length], PATH)


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def attacks(marker: Path) -> list[object]:
    make = f"open({str(marker)!r}, 'w').close()"
    return [
        Call(os.system, f"touch '{marker}'"),
        Call(exec, make),
        Call(eval, make),
        Call(getattr(Path, "touch"), marker),  # noqa: B009
        {"weight": [(Call(exec, make),)]},
        Call(map, Call(exec, make), ()),
    ]


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("place", range(5))
def test_a_pickle_that_would_run_code_runs_nothing(
    prologue: bytes, tmp_path: Path, number: int, place: int, protocol: int
) -> None:
    marker = tmp_path / "ran"
    attack = pickle.dumps(attacks(marker)[number], protocol)
    pickles = [pickle.dumps(part, 2) for part in (torch_file.MAGIC, 1001, {"little_endian": True})]
    pickles += [states(a=tensor()), KEYS]
    read_torch_tensors(b"".join(pickles) + SIX, PATH)

    pickles[place] = attack
    with pytest.raises(FileError, match="which could run code"):
        read_torch_tensors(b"".join(pickles) + SIX, PATH)
    assert not marker.exists()

    try:
        pickle.loads(attack)
    except TypeError:  # what ``map`` says after its argument has run
        assert number == 5
    assert marker.exists(), "the attack is none"


@pytest.mark.parametrize("name", ["_rebuild_tensor_v2.__globals__", "_rebuild_tensor_v2.__class__", "_rebuild_tensor"])
def test_nothing_is_reached_through_what_is_known(prologue: bytes, name: str) -> None:
    state = b"\x80\x04\x8c\x0ctorch._utils\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
    with pytest.raises(FileError, match="which could run code"):
        read_torch_tensors(prologue + state + KEYS + SIX, PATH)


@pytest.mark.parametrize("known", FOUND, ids=".".join)
@pytest.mark.parametrize("change", [b"}V__call__\nI1\ns", b"(N}V__call__\nI1\nst", b"}V__init__\nI1\ns"])
def test_a_pickle_cannot_change_what_it_finds(prologue: bytes, known: tuple[str, str], change: bytes) -> None:
    before = dict(getattr(FOUND[known], "__dict__", {}))
    state = b"\x80\x02c" + "\n".join(known).encode() + b"\n" + change + b"b."
    with pytest.raises(FileError):
        read_torch_tensors(prologue + state + KEYS + SIX, PATH)
    assert dict(getattr(FOUND[known], "__dict__", {})) == before
