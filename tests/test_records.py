"""Annotation lists and class lists."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.classes import read_classes, write_classes
from utils.errors import ConfigError, DataError
from utils.records import (
    format_record,
    parse_record,
    read_annotation_list,
    refuse_other_classes,
    refuse_overlap,
    write_annotation_list,
)
from utils.types import Record


def record(path: str, *boxes: tuple[float, float, float, float, int]) -> Record:
    corners = np.array([box[:4] for box in boxes], np.float64).reshape(-1, 4)
    return Record(path, corners, np.array([box[4] for box in boxes], np.int64))


def assert_same(first: Record, second: Record) -> None:
    assert first.image_path == second.image_path
    np.testing.assert_array_equal(first.boxes_xyxy, second.boxes_xyxy)
    np.testing.assert_array_equal(first.class_ids, second.class_ids)


coordinates = st.floats(-1e9, 1e9, allow_nan=False)
sides = st.floats(1e-3, 1e6)


@st.composite
def records(draw) -> Record:
    words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0"), max_size=12)
    path = "/" + draw(words) + draw(st.sampled_from([".jpg", " 1,2,3.png", "/a b.jpg"]))
    boxes = []
    for _ in range(draw(st.integers(0, 4))):
        x, y = draw(coordinates), draw(coordinates)
        boxes.append(
            (x, y, x + max(draw(sides), abs(x) / 1e9), y + max(draw(sides), abs(y) / 1e9), draw(st.integers(0, 99)))
        )
    return record(path, *boxes)


@given(records())
def test_parse_is_the_inverse_of_format(original):
    assert_same(parse_record(format_record(original)), original)


def test_the_shortest_form_that_reads_back():
    line = format_record(record("/p/a b.jpg", (1, 2.5, 30, 1 / 3 + 40, 7), (0, 0, 0.1, 1e-5, 0)))
    assert line == "/p/a b.jpg 1,2.5,30,40.333333333333336,7 0,0,0.1,1e-05,0"
    assert format_record(record("/p/a.jpg")) == "/p/a.jpg"


def test_reads_the_lists_of_integers_that_others_write():
    parsed = parse_record("/data/VOC2007/JPEGImages/000005.jpg 263,211,324,339,8 165,264,253,372,8\n")
    expected = record("/data/VOC2007/JPEGImages/000005.jpg", (263, 211, 324, 339, 8), (165, 264, 253, 372, 8))
    assert_same(parsed, expected)


@pytest.mark.parametrize(
    ("line", "path", "count"),
    [
        ("my photos/a 1.jpg 1,2,3,4,0", "my photos/a 1.jpg", 1),
        ("two  spaces.jpg  1,2,3,4,0  5,6,7,8,1 ", "two  spaces.jpg", 2),
        ("1,2,3,4,0", "1,2,3,4,0", 0),
        ("dir 1,2,3,4,0/a.jpg 1,2,3,4,0", "dir 1,2,3,4,0/a.jpg", 1),
        ("照片/🙂 3.jpg 1.5,2,3e2,4.,0\r", "照片/🙂 3.jpg", 1),
        ("a\tb.jpg", "a\tb.jpg", 0),
        ("a 12.jpg", "a 12.jpg", 0),
    ],
)
def test_reads_from_the_right(line, path, count):
    parsed = parse_record(line, 2)
    assert parsed.image_path == path
    assert len(parsed.class_ids) == count


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("a.jpg 1,2,3,4", "4 numbers"),
        ("a.jpg 1,2,3,4,0,6", "6 numbers"),
        ("a.jpg 1,2,3,4 1,2,3,4,0", "4 numbers"),
        ("a.jpg 1,2,3,4,2", "class id 2: only 2 classes"),
        ("a.jpg 1,2,3,4,-1", "class id '-1'"),
        ("a.jpg 1,2,3,4,99999999999999999999", "class id '99999999999999999999'"),
        (f"a.jpg 1,2,3,4,{'9' * 5000}", "class id '9999"),
        ("a.jpg 1,2,3,4,0.5", "class id '0.5'"),
        ("a.jpg 5,2,5,4,0", "x1 < x2"),
        ("a.jpg 1,9,3,4,0", "y1 < y2"),
        ("a.jpg 1,2,1e999,4,0", "finite"),
        ("a.jpg\t1,2,3,4,0", "a tab before the boxes"),
        ("a.jpg\t 1,2,3,4,0", "a tab before the boxes"),
        ("a.jpg\t1,2,3,4,0 5,6,7,8,1", "a tab before the boxes"),
        ("   ", "missing"),
    ],
)
def test_refuses_a_broken_line_and_names_it(tmp_path, line, match):
    with pytest.raises(DataError, match=match):
        parse_record(line, 2)
    path = tmp_path / "list.txt"
    path.write_text(f"ok.jpg\n{line}\n")
    if line.strip():
        with pytest.raises(DataError, match=rf"list\.txt: line 2: .*{match}"):
            read_annotation_list(path, 2)


@pytest.mark.parametrize(
    "path", ["a\nb.jpg", "a\rb.jpg", "", " a.jpg", "a.jpg ", "a 1,2,3,4,5", "a\t1,2,3,4,5", "a 1,2", "\ufeffa.jpg"]
)
def test_refuses_a_path_that_would_not_read_back(path, tmp_path):
    with pytest.raises(DataError):
        format_record(record(path))
    with pytest.raises(DataError):
        write_annotation_list(tmp_path / "list.txt", [record("fine.jpg"), record(path)])
    assert not (tmp_path / "list.txt").exists()


def test_refuses_boxes_that_are_none():
    for box in ((1, 2, 1, 4, 0), (1, 2, float("nan"), 4, 0), (1, 2, float("inf"), 4, 0)):
        with pytest.raises(DataError):
            format_record(record("a.jpg", box))


def test_a_list_of_any_names_survives_the_disk(tmp_path):
    names = [
        "a b.jpg",
        "照片.jpg",
        "🙂.jpg",
        "a.b.jpg",
        "a.c.jpg",
        os.fsdecode(b"caf\xe9 \xff.jpg"),
        "\u2028.jpg",
        "\x85x.jpg",
    ]
    originals = [record(f"/p/{name}", (0.1, 2, 3, 4, 1)) for name in names]
    path = tmp_path / "deep" / "list.txt"
    write_annotation_list(path, originals)
    for original, reread in zip(originals, read_annotation_list(path, 2), strict=True):
        assert_same(reread, original)
    assert os.fsencode(names[5]) in path.read_bytes()
    with pytest.raises(DataError, match="rename"):
        write_annotation_list(path, [record("/p/\ud800.jpg")])


def test_a_list_whose_ids_mean_other_classes_is_refused(tmp_path):
    path = tmp_path / "list.txt"
    # Where a list lies alone, its ids are taken at their word.
    refuse_other_classes(path, ("cat", "cow"), "list it anew")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    refuse_other_classes(path, ("cat", "dog"), "list it anew")
    refuse_other_classes(path, ("cat", "dog", "cow"), "list it anew")
    with pytest.raises(DataError, match=r"list\.txt: class id 1: is 'dog' by .*classes\.txt, not 'cow': list it anew"):
        refuse_other_classes(path, ("cat", "cow"), "list it anew")
    # A file that is no class list says nothing, nor does what is no list of photos.
    (tmp_path / "classes.txt").write_text("")
    refuse_other_classes(path, ("cat", "cow"), "list it anew")
    refuse_other_classes(".", ("cat", "cow"), "list it anew")


def test_line_ends_and_byte_order_marks(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfa.jpg 1,2,3,4,0\r\n\r\nb b.jpg\r\n")
    first, second = read_annotation_list(path, 1)
    assert_same(first, record("a.jpg", (1, 2, 3, 4, 0)))
    assert_same(second, record("b b.jpg"))


def test_a_missing_or_empty_list_is_a_usage_error(tmp_path):
    with pytest.raises(ConfigError, match="no such"):
        read_annotation_list(tmp_path / "absent.txt")
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(ConfigError, match="empty"):
        read_annotation_list(tmp_path / "empty.txt")
    with pytest.raises(DataError, match="directory"):
        read_annotation_list(tmp_path)


def test_the_same_image_in_train_and_val_is_refused():
    train = [record("/p/a.b.jpg"), record("/p/c.jpg")]
    refuse_overlap(train, [record("/p/a.c.jpg"), record("/p/d.jpg")])
    refuse_overlap(train, [])
    with pytest.raises(DataError, match=r"/p/c\.jpg"):
        refuse_overlap(train, [record("/p/x.jpg"), record("/p/c.jpg")])
    with pytest.raises(DataError, match="and 1 more"):
        refuse_overlap(train, [record("/p/./a.b.jpg"), record("/p/q/../c.jpg")])


def test_class_lists(tmp_path):
    path = tmp_path / "classes.txt"
    write_classes(path, ["car", "Tie Fighter", "汽车"])
    assert path.read_text("utf-8") == "car\nTie Fighter\n汽车\n"
    assert read_classes(path) == ("car", "Tie Fighter", "汽车")
    path.write_bytes("\ufeffcar \r\n\r\n  bus\r\n\r\n".encode())
    warnings: list[str] = []
    assert read_classes(path, warnings.append) == ("car", "bus")
    assert len(warnings) == 2
    assert "line 2: blank" in warnings[0]
    path.write_text("car\nbus")
    assert read_classes(path, warnings.append) == ("car", "bus")
    assert len(warnings) == 2


def test_class_lists_that_are_refused(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("car\nbus\n car\n")
    with pytest.raises(DataError, match=r"line 3: 'car': also in line 1"):
        read_classes(path)
    path.write_bytes("汽车".encode("gbk"))
    with pytest.raises(DataError, match="UTF-8"):
        read_classes(path)
    path.write_text("\n\n")
    with pytest.raises(ConfigError, match="no class"):
        read_classes(path)
    with pytest.raises(ConfigError, match="no such"):
        read_classes(tmp_path / "absent.txt")
    for names in (["a", "a"], ["a\nb"], [" a"], [""]):
        with pytest.raises(DataError):
            write_classes(tmp_path / "out.txt", names)
    assert not (tmp_path / "out.txt").exists()


def test_the_shipped_classes_are_voc_s_twenty_in_code_point_order():
    from tests.conftest import ROOT

    names = read_classes(ROOT / "model_data" / "voc_classes.txt")
    assert len(names) == 20
    assert list(names) == sorted(names)
    assert names[0] == "aeroplane"
    assert names[-1] == "tvmonitor"
