"""The text files of a measurement: written, read back, and read from strangers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluation_data import class_names, found, random_case, truth
from utils.errors import ConfigError, DataError
from utils.map_files import _found_of, _truth_of, read_map_files, write_map_files
from utils.metrics import evaluate

A, B = (1.5, 2.25, 30.1, 40.7), (0, 0, 9, 9)
IDS = ("000001", "a.b", "a.c", "with space", "猫 🐈", "x.txt", "100%")


def write_pair(folder: Path, truths: str = "", results: str = "", image_id: str = "1") -> Path:
    for name, content in (("ground-truth", truths), ("detection-results", results)):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / f"{image_id}.txt").write_bytes(content.encode())
    return folder


def test_the_form_is_the_documented_one(tmp_path: Path) -> None:
    write_map_files(tmp_path, [truth("a.b", (0, B), (1, A, True))], {"a.b": found((1, 0.1, A))}, ("cat", "tv monitor"))
    lines = (tmp_path / "ground-truth" / "a.b.txt").read_text().splitlines()
    assert lines == ["cat 0.0 0.0 9.0 9.0", "tv monitor 1.5 2.25 30.1 40.7 difficult"]
    # float32 0.1 and 30.1 in full, so that reading gives the very same numbers
    result = (tmp_path / "detection-results" / "a.b.txt").read_text()
    assert result == "tv monitor 0.10000000149011612 1.5 2.25 30.100000381469727 40.70000076293945\n"
    assert (tmp_path / "classes.txt").read_text() == "cat\ntv monitor\n"


def test_round_trip(tmp_path: Path) -> None:
    names = ("cat", "tv monitor", "猫 7", "difficult", "1 2")
    rng = np.random.default_rng(0)
    truths, detections = random_case(0, images=len(IDS), classes=5)
    truths = [type(t)(i, t.boxes_xyxy, t.class_ids, t.difficult) for t, i in zip(truths, IDS, strict=True)]
    detections = dict(zip(IDS, detections.values(), strict=True))
    write_map_files(tmp_path, [truths[i] for i in rng.permutation(len(IDS))], detections, names)
    back = read_map_files(tmp_path, names)
    assert [t.image_id for t in back.ground_truths] == sorted(IDS)
    for before in truths:
        after = next(t for t in back.ground_truths if t.image_id == before.image_id)
        np.testing.assert_array_equal(after.boxes_xyxy, before.boxes_xyxy)
        np.testing.assert_array_equal(after.class_ids, before.class_ids)
        np.testing.assert_array_equal(after.difficult, before.difficult)
        mine, theirs = back.detections[before.image_id], detections[before.image_id]
        np.testing.assert_array_equal(mine.boxes_xyxy, theirs.boxes_xyxy.astype(np.float64))
        np.testing.assert_array_equal(mine.scores, theirs.scores.astype(np.float64))
        np.testing.assert_array_equal(mine.class_ids, theirs.class_ids)
        assert mine.names == tuple(names[i] for i in theirs.class_ids)


@pytest.mark.parametrize("seed", range(3))
def test_metrics_from_files_equal_those_from_memory_exactly(tmp_path: Path, seed: int) -> None:
    truths, detections = random_case(seed, images=20, coarse=seed == 1)
    names = class_names(4)
    write_map_files(tmp_path, truths, detections, names)
    memory = evaluate(truths, detections, names).to_dict()
    files = read_map_files(tmp_path, names)
    assert evaluate(files.ground_truths, files.detections, files.class_names).to_dict() == memory
    derived = read_map_files(tmp_path)
    assert derived.class_names == tuple(sorted(names))
    again = evaluate(derived.ground_truths, derived.detections, derived.class_names).to_dict()
    del memory["confusion"], again["confusion"]
    assert again == memory


def test_a_second_measurement_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    write_map_files(tmp_path, [truth("old", (0, A))], {"old": found((0, 0.5, A))}, ("cat",))
    write_map_files(tmp_path, [truth("new")], {}, ("cat",))
    assert [path.name for path in (tmp_path / "ground-truth").iterdir()] == ["new.txt"]
    assert (tmp_path / "detection-results" / "new.txt").read_bytes() == b""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classes.txt", "detection-results", "ground-truth"]


def test_an_id_that_is_no_file_name_is_refused(tmp_path: Path) -> None:
    for image_id in ("a/b", "a\nb", ""):
        with pytest.raises(ValueError, match="cannot name a file"):
            write_map_files(tmp_path, [truth(image_id)], {}, ("cat",))


def test_what_other_tools_write_is_read(tmp_path: Path) -> None:
    truths = "\ufefftv  monitor 1 2 3 4 difficult\r\n\r\ncat\t10\t20\t30.5\t40\r\ncar 5 1 2 3 4   \n"
    results = "tv  monitor .5 1 2 3 4\ncat 1e-3 -1.5 2. 3 4"
    files = read_map_files(write_pair(tmp_path, truths, results))
    assert files.class_names == ("car 5", "cat", "tv  monitor")
    (image,) = files.ground_truths
    assert image.class_ids.tolist() == [2, 1, 0]
    assert image.difficult.tolist() == [True, False, False]
    assert image.boxes_xyxy[1].tolist() == [10, 20, 30.5, 40]
    assert files.detections["1"].scores.tolist() == [0.5, 0.001]
    assert files.detections["1"].boxes_xyxy[1].tolist() == [-1.5, 2, 3, 4]


@pytest.mark.parametrize(
    ("truths", "results", "complaint"),
    [
        ("cat 1 2 3", "", "too few words"),
        ("1 2 3 4", "", "too few words"),
        ("cat 1 2 3 x", "", "'x': not a number"),
        ("cat 1 2 3 nan", "", "not a number"),
        ("cat 1 2 3 1_0", "", "not a number"),
        ("cat 1 2 3 １０", "", "not a number"),
        ("cat 1 2 3 1e999", "", "not a number"),
        ("cat 5 2 3 4", "", "must not lie before"),
        ("", "cat 1 2 3 4", "too few words"),
        ("", "cat 1.5 1 2 3 4", "0..1"),
        ("dog 1 2 3 4", "", "unknown class 'dog'"),
        ("cat 1 2 3 4", "cta 0.5 1 2 3 4", "did you mean 'cat'"),
    ],
)
def test_bad_lines_are_refused_with_their_place(tmp_path: Path, truths: str, results: str, complaint: str) -> None:
    write_pair(tmp_path, truths and f"cat 1 2 3 4\n{truths}", results and f"\n{results}")
    with pytest.raises(DataError, match=r"1\.txt: line 2: .*") as raised:
        read_map_files(tmp_path, ("cat",))
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_both_files_must_be_there(tmp_path: Path) -> None:
    write_pair(tmp_path)
    (tmp_path / "ground-truth" / "2.txt").touch()
    with pytest.raises(DataError, match=r"detection-results/2\.txt: missing"):
        read_map_files(tmp_path)
    (tmp_path / "ground-truth" / "2.txt").rename(tmp_path / "detection-results" / "2.txt")
    with pytest.raises(DataError, match=r"ground-truth/2\.txt: missing"):
        read_map_files(tmp_path)


def test_missing_or_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such folder"):
        read_map_files(tmp_path)
    (tmp_path / "ground-truth").mkdir()
    with pytest.raises(ConfigError, match=r"holds no \.txt files"):
        read_map_files(tmp_path)


def test_not_utf8_and_not_a_file(tmp_path: Path) -> None:
    write_pair(tmp_path)
    (tmp_path / "ground-truth" / "1.txt").write_bytes("红细胞 1 2 3 4".encode("gbk"))
    with pytest.raises(DataError, match=r"1\.txt: byte 0: not UTF-8"):
        read_map_files(tmp_path)
    (tmp_path / "ground-truth" / "1.txt").unlink()
    (tmp_path / "ground-truth" / "1.txt").mkdir()
    with pytest.raises(DataError, match="not a regular file"):
        read_map_files(tmp_path)


NAMES = st.text(st.characters(exclude_characters="\n\r", exclude_categories=("Cs",)), min_size=1, max_size=20).filter(
    lambda name: name == name.strip()
)
NUMBERS = st.floats(-1e6, 1e6, width=32)


@settings(deadline=None, max_examples=60)
@given(NAMES, st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS), st.booleans(), st.floats(0, 1, width=32))
def test_any_name_and_number_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    box: tuple[float, float, float, float],
    difficult: bool,
    score: float,
) -> None:
    folder = tmp_path_factory.mktemp("map")
    left, right = sorted(box[::2])
    top, bottom = sorted(box[1::2])
    ordered = (left, top, right, bottom)
    write_map_files(folder, [truth("1", (0, ordered, difficult))], {"1": found((0, score, box))}, (name,))
    (line,) = _truth_of(folder / "ground-truth" / "1.txt")
    assert (line.name, line.numbers, line.difficult) == (name, ordered, difficult)
    (line,) = _found_of(folder / "detection-results" / "1.txt")
    assert (line.name, line.numbers) == (name, (score, *box))
