"""voc_annotation.py end to end: lists, splits, classes, health report, problems."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import voc_annotation
from tests.conftest import ROOT
from tests.voc_trees import VocTree, annotate, annotation_xml, files_below, object_xml
from utils.annotate import Dataset, Sample
from utils.classes import read_classes
from utils.health import measure
from utils.health_plot import draw_health
from utils.records import read_annotation_list
from utils.types import AnnotatedObject, Annotation
from utils.voc import ground_truth_beside

CAR = object_xml("car", 1, 2, 30, 40)
BUS = object_xml("bus", "0.5", 2, 30, 40)
HARD = object_xml("van", 1, 2, 3, 4, "<difficult>1</difficult>")


@pytest.fixture
def tree(tmp_path) -> VocTree:
    """Two training images, one of them with a difficult object, a validation negative, a test image."""
    tree = VocTree(tmp_path / "my devkit")
    tree.add("a", CAR, BUS)
    tree.add("b c", BUS, HARD)
    tree.add("d")
    tree.add("e", CAR)
    tree.split("train", "a", "b c")
    tree.split("val", "d")
    tree.split("test", "e")
    tree.split("car_train", "a  1", "b c -1")
    return tree


def test_writes_lists_classes_and_picture_and_leaves_the_input_alone(tree, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in tree.root.rglob("*")}
    out = tmp_path / "out" / "deep"
    assert annotate("--voc", tree.root, "--out", out) == 0
    assert files_below(out) == {"2007_train.txt", "2007_val.txt", "2007_test.txt", "classes.txt", "dataset.png"}
    assert read_classes(out / "classes.txt") == ("bus", "car", "van")
    first, second = read_annotation_list(out / "2007_train.txt", 3)
    assert first.image_path == str(tree.folder / "JPEGImages" / "a.jpg")
    np.testing.assert_array_equal(first.boxes_xyxy, [[1, 2, 30, 40], [0.5, 2, 30, 40]])
    assert first.class_ids.tolist() == [1, 0]
    assert second.image_path.endswith("/b c.jpg")
    assert second.class_ids.tolist() == [0]
    (negative,) = read_annotation_list(out / "2007_val.txt", 3)
    assert len(negative.class_ids) == 0
    assert before == {path: path.stat().st_mtime_ns for path in tree.root.rglob("*")}
    report = capsys.readouterr().out
    assert re.search(r"2007 train +2 +0 +3 +1\.5 +1", report)
    assert re.search(r"2007 val +1 +1 +0 +0\.0 +0", report)
    assert re.search(r"car +2 +50\.0% +2 +33 +1 +0 +1", report)
    assert Image.open(out / "dataset.png").size[0] > 800


def test_given_classes_decide_ids_and_unknown_ones_are_counted(tree, tmp_path, capsys):
    classes = tmp_path / "classes.txt"
    classes.write_text("cart\n\ncar\n")
    assert annotate("--voc", tree.root, "--out", tmp_path / "out", "--classes", classes, "--no-report") == 0
    # What the ids mean lies beside them, and what was given stays as it was.
    assert read_classes(tmp_path / "out" / "classes.txt") == ("cart", "car")
    assert annotate("--voc", tree.root, "--out", tmp_path, "--classes", classes, "--no-report") == 0
    assert classes.read_text() == "cart\n\ncar\n"
    assert read_annotation_list(tmp_path / "out" / "2007_train.txt", 2)[0].class_ids.tolist() == [1]
    shown = capsys.readouterr().out
    assert re.search(r"unknown class 'bus': 2, such as .*a\.xml", shown)
    assert "blank line in the class list: 1" in shown


def test_a_misspelt_class_gets_a_hint(tree, tmp_path, capsys):
    tree.add("a", object_xml("cra", 1, 2, 3, 4))
    classes = tmp_path / "classes.txt"
    classes.write_text("car\n")
    assert annotate("--voc", tree.root, "--out", tmp_path / "out", "--classes", classes, "--no-report") == 0
    assert "did you mean 'car'?" in capsys.readouterr().out


def test_no_object_left_is_an_error_even_when_skipping(tree, tmp_path, capsys):
    classes = tmp_path / "classes.txt"
    classes.write_text("zebra\n")
    for more in ([], ["--skip-bad"]):
        assert annotate("--voc", tree.root, "--out", tmp_path / "out", "--classes", classes, *more) == 3
    error = capsys.readouterr().err
    assert "no object is left in the whole set: classes wanted: zebra; in the annotations: bus, car, van" in error
    assert not (tmp_path / "out").exists()


def test_problems_are_all_printed_and_nothing_is_written(tree, tmp_path, capsys):
    tree.add("a", object_xml("car", 5, 5, 5, 9), object_xml("car", 1, 1, "NaN", 9))
    tree.write_xml("d", "<annotation>")
    (tree.folder / "JPEGImages" / "e.jpg").write_bytes(b"<html>")
    assert annotate("--voc", tree.root, "--out", tmp_path / "out") == 3
    lines = capsys.readouterr().err.strip().split("\n")
    assert len(lines) == 5
    for expected in ("a.xml: object 1", "a.xml: object 2", "d.xml: not well-formed", "e.jpg: is an HTML page"):
        assert sum(expected in line for line in lines) == 1
    assert "4 problems: nothing written" in lines[-1]
    assert not (tmp_path / "out").exists()

    assert annotate("--voc", tree.root, "--out", tmp_path / "out", "--skip-bad") == 0
    lines = capsys.readouterr().err.strip().split("\n")
    assert "4 problems: 3 images left out" in lines[-1]
    assert len(lines) == 5
    # The whole image of a broken box is left out, not the box alone.
    (kept,) = read_annotation_list(tmp_path / "out" / "2007_train.txt", 2)
    assert kept.image_path.endswith("b c.jpg")
    assert files_below(tmp_path / "out") == {"2007_train.txt", "classes.txt", "dataset.png"}


def test_ids_that_become_other_classes_are_told_of(tree, tmp_path, capsys):
    out = tmp_path / "out"
    for said in ("", f"{out / 'classes.txt'}: 'bus' became 'ant', 'car' became 'bus', 'van' became 'car': a detector"):
        annotate("--voc", tree.root, "--out", out, "--no-report")
        annotate("--voc", tree.root, "--out", out, "--no-report")
        told = capsys.readouterr().out
        assert ("became" in told) == bool(said)
        assert said in told
        tree.add("f", object_xml("ant", 1, 2, 30, 40))
        tree.split("train", "a", "b c", "f")
    (out / "classes.txt").write_text("")
    assert annotate("--voc", tree.root, "--out", out, "--no-report") == 0


@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda tree: (tree.folder / "Annotations" / "a.xml").unlink(), r"a\.xml: no such annotation"),
        (lambda tree: (tree.folder / "JPEGImages" / "a.jpg").unlink(), r"a\.\*: no such image"),
        (lambda tree: tree.add("a", CAR, suffix=".png"), r"one annotation, 2 images"),
        (lambda tree: tree.write_xml("a", annotation_xml([CAR], (640, 480))), r"640x480: the image is 64x48"),
        (lambda tree: tree.write_xml("a", annotation_xml([object_xml("car", 1, 1, 90, 9)])), r"outside the image"),
        (lambda tree: tree.split("train", "a", "../../../etc/passwd"), r"line 2: '../../../etc/passwd'"),
        (lambda tree: tree.split("val", "a"), r"val\.txt: a: is in train\.txt too"),
        (lambda tree: (tree.folder / "JPEGImages" / "a.jpg").write_bytes(b""), r"a\.jpg: is empty"),
    ],
)
def test_each_problem_stops_and_can_be_skipped(tree, tmp_path, capsys, damage, match):
    damage(tree)
    assert annotate("--voc", tree.root, "--out", tmp_path / "out", "--no-report") == 3
    assert re.search(match, capsys.readouterr().err)
    assert annotate("--voc", tree.root, "--out", tmp_path / "out", "--no-report", "--skip-bad") == 0
    assert re.search(match, capsys.readouterr().err)
    assert (tmp_path / "out" / "2007_train.txt").exists()


def test_a_truncated_photo_is_found_before_training(tree, tmp_path, capsys):
    path = tree.folder / "JPEGImages" / "a.jpg"
    path.write_bytes(path.read_bytes()[:-20])
    assert annotate("--voc", tree.root, "--out", tmp_path / "out", "--no-report") == 3
    assert "a.jpg: is truncated" in capsys.readouterr().err


def test_an_image_in_train_and_val_stays_in_train_when_skipping(tree, tmp_path):
    tree.split("val", "a", "d")
    assert annotate("--voc", tree.root, "--out", tmp_path / "out", "--skip-bad", "--no-report") == 0
    assert len(read_annotation_list(tmp_path / "out" / "2007_train.txt")) == 2
    (only,) = read_annotation_list(tmp_path / "out" / "2007_val.txt")
    assert only.image_path.endswith("d.jpg")


def test_warnings_are_counted_by_kind(tree, tmp_path, capsys):
    extra = "<filename>other.jpg</filename>"
    tree.write_xml("a", annotation_xml([object_xml(" car ", -1, 2, 30, 40), CAR, CAR], None, extra))
    tree.write_xml("e", annotation_xml([CAR], extra=extra))
    tree.split("val", "d", "d")
    tree.add("unlisted", CAR)
    assert annotate("--voc", tree.root, "--out", tmp_path / "out", "--no-report") == 0
    shown = capsys.readouterr().out
    for kind, count in (
        ("filename differs from the XML's name", 2),
        ("size missing", 1),
        ("box clipped to the image", 1),
        ("spaces around a name", 1),
        ("same box twice", 1),
        ("image twice in a split", 1),
        ("annotation in no split", 1),
    ):
        assert f"warning: {kind}: {count}, such as " in shown


def test_a_folder_without_any_annotation(tmp_path, capsys):
    tree = VocTree(tmp_path / "devkit")
    assert annotate("--voc", tree.root, "--out", tmp_path / "out") == 3
    assert "classes wanted: any; in the annotations: none at all" in capsys.readouterr().err


def test_names_in_any_script_and_in_none(tmp_path):
    tree = VocTree(tmp_path / "照片 🙂")
    stems = ["照片", "🙂 2", os.fsdecode(b"caf\xe9"), "[bold]x", "a\u2028b"]
    for stem in stems:
        tree.add(stem, object_xml("汽车", 1, 2, 3, 4, "<difficult>0</difficult>"), size_wh=(64, 48 + len(stem)))
    tree.write_xml(stems[2], annotation_xml([CAR], None))
    lines = b"".join(os.fsencode(stem) + b"\n" for stem in stems)
    tree.split("train").write_bytes(lines)
    command = [sys.executable, str(ROOT / "voc_annotation.py"), "--voc", str(tree.root), "--out", str(tmp_path / "out")]
    # The smallest character set a shell can have must not stop the report.
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    result = subprocess.run(command, capture_output=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert b"size missing: 1" in result.stdout
    found = [Path(record.image_path).stem for record in read_annotation_list(tmp_path / "out" / "2007_train.txt", 2)]
    assert found == stems


def test_a_line_break_in_a_name_is_an_error_of_one_line(tmp_path, capsys):
    tree = VocTree(tmp_path / "devkit")
    for stem in ("a\nb", "c", "d"):
        tree.add(stem, CAR)
    assert annotate("--voc", tree.root, "--out", tmp_path / "out", "--no-report") == 3
    error = capsys.readouterr().err
    assert "not a plain image name" in error
    assert error.count("\n") == 2


def test_no_photo_is_passed_over_in_silence(tmp_path, capsys):
    tree = VocTree(tmp_path / "devkit")
    for stem in ("a", "b", "c", "d", "e"):
        tree.add(stem, CAR)
    (tree.folder / "Annotations" / "b.xml").rename(tree.folder / "Annotations" / "b.XML")
    (tree.folder / "Annotations" / "c.xml").unlink()
    assert annotate("--voc", tree.root, "--out", tmp_path / "out", "--no-report") == 0
    listed = "".join(path.read_text() for path in (tmp_path / "out").glob("2007_*.txt"))
    assert listed.count("JPEGImages") == 4
    assert "/b.jpg" in listed
    assert re.search(r"image without annotation.*1.*c\.jpg", capsys.readouterr().out)
    beside = ground_truth_beside(tree.folder / "JPEGImages" / "b.jpg", ("car",))
    assert beside is not None
    assert beside.class_ids.tolist() == [0]


def test_what_is_left_out_is_in_no_split_either_and_an_empty_list_is_said(tmp_path, capsys):
    tree, out = VocTree(tmp_path / "devkit"), tmp_path / "out"
    for stem in "abcde":
        tree.add(stem, CAR)
    assert annotate("--voc", tree.root, "--out", out, "--no-report") == 0
    sets = out / "VOC2007" / "ImageSets" / "Main"
    (lonely,) = (sets / "val.txt").read_text().split()
    (tree.folder / "JPEGImages" / f"{lonely}.jpg").unlink()
    assert annotate("--voc", tree.root, "--out", out, "--no-report", "--skip-bad") == 0
    assert lonely not in "".join(path.read_text() for path in sets.iterdir()).split()
    assert "2007_val.txt: no image is left for it: not written, and training needs it" in capsys.readouterr().out
    # The annotation gone, too, the split has no such part at all.
    (tree.folder / "Annotations" / f"{lonely}.xml").unlink()
    assert annotate("--voc", tree.root, "--out", out, "--no-report") == 0
    assert "2007_val.txt: no image is left for it: not written, and training needs it" in capsys.readouterr().out
    assert {path.name for path in out.glob("2007_*.txt")} == {"2007_train.txt", "2007_test.txt"}


def test_splits_by_other_names_and_folders_within_are_said_not_to_be_used(tmp_path, capsys):
    tree, out = VocTree(tmp_path / "devkit"), tmp_path / "out"
    for stem in "ab":
        tree.add(stem, CAR)
    (tree.folder / "JPEGImages" / "more").mkdir()
    tree.split("train", "a")
    tree.split("Valid", "b")
    tree.split("car_val", "b")
    assert annotate("--voc", tree.root, "--out", out, "--no-report") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "ImageSets/Main/Valid.txt: not used: call it val.txt" in said
    assert "JPEGImages/more: nothing in it is used: put its files into JPEGImages" in said
    assert "2007_val.txt: no image is left for it" in said
    assert "car_val" not in said


def test_usage_errors(tree, tmp_path, capsys):
    out = ("--out", tmp_path / "out")
    for arguments, match in (
        (("--voc", tree.root), "--out"),
        ((*out,), "--voc"),
        (("--voc", tmp_path / "absent", *out), "no such folder"),
        (("--voc", tree.folder, *out), "give its parent"),
        (("--voc", tree.root, "--year", "2008", *out), "did you mean '2007'"),
        (("--voc", tree.root, "--classes", tmp_path / "absent.txt", *out), "no such class list"),
        (("--voc", tree.root, "--train-percent", "90", *out), "--train-percent: 90.0"),
        (("--voc", tree.root, "--seed", "-1", *out), "--seed"),
        (("--voc", tree.root, "--out", tree.root), "is the input folder"),
        (("--voc", tree.root, "--out", tree.folder / "lists"), "is the input folder"),
        (("--voc", tree.root, "--owt", "x"), "--out"),
    ):
        assert annotate(*arguments) == 2
        error = capsys.readouterr().err
        assert match in error
        assert error.count("\n") == 1


def test_exif_decides_the_size_unless_told_otherwise(tree, tmp_path, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (64, 48)).save(tree.folder / "JPEGImages" / "a.jpg", exif=exif)
    assert annotate("--voc", tree.root, "--out", tmp_path / "out", "--no-report") == 3
    assert "give --ignore-exif" in capsys.readouterr().err
    assert annotate("--voc", tree.root, "--out", tmp_path / "out", "--no-report", "--ignore-exif") == 0


def test_health_counts_by_hand(tmp_path):
    def sample(name: str, *objects: AnnotatedObject) -> Sample:
        return Sample(f"/p/{name}.jpg", Annotation(Path(f"/p/{name}.xml"), (100, 200), objects))

    big, small = AnnotatedObject("a", (0, 0, 100, 100)), AnnotatedObject("汽车", (0, 0, 10, 20))
    hard = AnnotatedObject("a", (0, 0, 5, 5), difficult=True)
    dataset = Dataset(
        {
            ("2007", "train"): [sample("1", big, big, small), sample("2", hard), sample("3")],
            ("2012", "val"): [sample("4", big, AnnotatedObject("unknown", (0, 0, 1, 1)))],
        }
    )
    health = measure(dataset, ("a", "汽车", "$x_1$" + 5000 * "long"))
    train, val = health.splits
    assert (train.name, train.images, train.empty_images, train.difficult) == ("2007 train", 3, 2, 1)
    assert train.boxes_per_class.tolist() == [2, 1, 0]
    assert train.images_per_class.tolist() == [1, 1, 0]
    assert (val.images, val.empty_images, val.boxes_per_class.tolist()) == (1, 0, [1, 0, 0])
    assert health.smallest_in == "/p/1.jpg"
    assert sorted(health.sizes.tolist()) == pytest.approx([200**0.5, 100, 100, 100])
    assert health.image_sizes == {(100, 200): 4}
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # no room for the plot beside a name that long
        draw_health(health, tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").format == "PNG"
    draw_health(measure(Dataset(), ("a",)), tmp_path / "empty.png")


def test_starts_without_what_takes_long_to_load():
    heavy = "{'tensorflow', 'keras', 'cv2', 'rich', 'matplotlib', 'PIL'}"
    code = f"import sys, voc_annotation; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "[]"


def test_help_teaches(capsys):
    with pytest.raises(SystemExit) as caught:
        voc_annotation.main(["--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for expected in ("Examples:", "default: 0.9", "--skip-bad", "leaves out the whole image"):
        assert expected in shown


def test_blood_cells_stop_at_their_two_flat_boxes(bccd_root, tmp_path, capsys):
    assert annotate("--voc", bccd_root, "--out", tmp_path / "out", "--no-report") == 3
    error = capsys.readouterr().err
    assert "BloodImage_00338.xml: object 13 (RBC)" in error
    assert "BloodImage_00343.xml: object 4 (RBC)" in error
    assert error.count("\n") == 3
    assert annotate("--voc", bccd_root, "--out", tmp_path / "out", "--no-report", "--skip-bad") == 0
    counts = {path.name: len(read_annotation_list(path, 3)) for path in (tmp_path / "out").glob("2007_*.txt")}
    assert counts == {"2007_train.txt": 204, "2007_val.txt": 86, "2007_test.txt": 72}
    assert read_classes(tmp_path / "out" / "classes.txt") == ("Platelets", "RBC", "WBC")
