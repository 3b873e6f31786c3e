"""The VOC folder: its years, images, splits and the ground truth it holds."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.voc_trees import VocTree, annotation_xml, object_xml
from utils.errors import ConfigError, DataError
from utils.problems import FailFast, Problems
from utils.voc import (
    annotation_path_for,
    annotation_stems,
    ground_truth_beside,
    image_path_for,
    image_sets,
    load_ground_truth,
    read_image_set,
    voc_year_dir,
    voc_years,
)

CAR = object_xml("car", 1, 2, 30, 40)


def test_years_and_their_folders(tmp_path):
    VocTree(tmp_path, "2012")
    VocTree(tmp_path, "2007")
    (tmp_path / "VOC2005").mkdir()
    (tmp_path / "notes").mkdir()
    assert voc_years(tmp_path) == ["2007", "2012"]
    assert voc_year_dir(tmp_path, "2012") == tmp_path / "VOC2012"
    with pytest.raises(ConfigError, match="2007"):
        voc_year_dir(tmp_path, "2008")
    with pytest.raises(ConfigError, match="give its parent"):
        voc_years(tmp_path / "VOC2007")
    with pytest.raises(ConfigError, match="no such folder"):
        voc_years(tmp_path / "absent")
    with pytest.raises(ConfigError, match="holds no folder"):
        voc_years(tmp_path / "notes")


def test_finds_the_image_of_a_stem(tmp_path):
    tree = VocTree(tmp_path)
    wanted = [tree.add("a.b"), tree.add("a.c", suffix=".png"), tree.add("photo 1"), tree.add("照片🙂", suffix=".bmp")]
    upper = tree.add("upper")
    upper.rename(upper.with_suffix(".JPG"))
    (tree.folder / "JPEGImages" / "._a.b.jpg").write_bytes(b"left by macOS")
    (tree.folder / "Annotations" / "._a.b.xml").write_bytes(b"left by macOS")
    assert annotation_stems(tree.folder) == ["a.b", "a.c", "photo 1", "upper", "照片🙂"]
    found = [image_path_for(tree.folder, stem) for stem in ("a.b", "a.c", "photo 1", "照片🙂")]
    assert found == wanted
    assert image_path_for(tree.folder, "upper").suffix == ".JPG"
    with pytest.raises(DataError, match="no such image"):
        image_path_for(tree.folder, "a")


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ("photo.HEIC", "but photo.HEIC, which is not read: convert it to JPEG: add it, or delete photo.xml"),
        ("Photo.JPG", "but 'Photo.JPG', which differs in case or in how accents are written: rename one"),
        ("other.jpg", "no such image: add it, or delete photo.xml"),
    ],
)
def test_what_lies_there_in_place_of_an_image_is_named(tmp_path, there, said):
    tree = VocTree(tmp_path)
    tree.add("photo").rename(tree.folder / "JPEGImages" / there)
    for suffix in (".AAE", ".txt"):
        (tree.folder / "JPEGImages" / f"photo{suffix}").touch()
    with pytest.raises(DataError, match=said):
        image_path_for(tree.folder, "photo")


def test_an_accent_written_in_another_way_is_said(tmp_path):
    tree = VocTree(tmp_path)
    tree.add("cafe\u0301")
    if (tree.folder / "JPEGImages" / "caf\xe9.jpg").exists():
        pytest.skip("this file system takes both for one")
    with pytest.raises(DataError, match="how accents are written: rename one"):
        image_path_for(tree.folder, "caf\xe9")


def test_two_images_for_one_annotation_are_refused(tmp_path):
    tree = VocTree(tmp_path)
    tree.add("a")
    tree.add("a", suffix=".png")
    with pytest.raises(DataError, match=r"a\.jpg and a\.png"):
        image_path_for(tree.folder, "a")


def test_links_and_climbing_names_are_never_followed(tmp_path):
    tree = VocTree(tmp_path)
    outside = tree.add("real").rename(tmp_path / "outside.jpg")
    (tree.folder / "JPEGImages" / "link.jpg").symlink_to(outside)
    with pytest.raises(DataError, match="link"):
        image_path_for(tree.folder, "link")
    for name in ("../../outside", "/etc/passwd", "..", "", "a\\b"):
        with pytest.raises(DataError, match="plain"):
            image_path_for(tree.folder, name)
        with pytest.raises(DataError, match="plain"):
            annotation_path_for(tree.folder, name)
    tree.split("train", "../../outside")
    with pytest.raises(DataError, match=r"train\.txt: line 1"):
        read_image_set(tree.folder, "train")


def test_image_sets_in_every_dress(tmp_path):
    tree = VocTree(tmp_path)
    tree.add("photo 1")
    tree.split("train", text="\ufeff000001\r\n\r\n000002  -1\r\nphoto 1\r\n  000003\t1 \r\n000001\r\n")
    assert read_image_set(tree.folder, "train") == ["000001", "000002", "photo 1", "000003"]
    for stem in (" 4 ", "5.jpg"):
        tree.add(stem)
    tree.split("whole", text=" 4 \n5.jpg\r\n6.JPG\r\n7.txt\r8\n9.png 1\n../a.jpg\n")
    outside = Problems()
    assert read_image_set(tree.folder, "whole", outside) == [" 4 ", "5.jpg", "6", "7.txt\r8", "9"]
    assert len(outside.errors) == 1
    tree.split("one_line", text="\r".join(f"{number:06d}" for number in range(100)))
    with pytest.raises(DataError, match=r"line 1: '000000.*not a plain image name"):
        read_image_set(tree.folder, "one_line")
    problems = Problems()
    read_image_set(tree.folder, "train", problems)
    assert problems.warnings["image twice in a split"] == 1
    tree.split("val", "a")
    assert image_sets(tree.folder) == ["one_line", "train", "val", "whole"]
    with pytest.raises(ConfigError, match="did you mean 'train'"):
        read_image_set(tree.folder, "trian")
    tree.split("test", text="\n")
    with pytest.raises(DataError, match="empty"):
        read_image_set(tree.folder, "test")
    assert read_image_set(tree.folder, "test", problems) == []
    assert problems.warnings["empty split"] == 1


def test_ground_truth_keeps_difficult_and_leaves_unknown_classes_out(tmp_path):
    tree = VocTree(tmp_path)
    hard = object_xml("bus", 5, 5, 20, 20, "<difficult>1</difficult>")
    path = tree.add("b", CAR, hard, object_xml("zebra", 1, 1, 2, 2))
    tree.add("a")
    tree.split("test", "b", "a")
    pairs = load_ground_truth(tmp_path, "2007", "test", ("bus", "car"))
    assert [truth.image_id for _, truth in pairs] == ["b", "a"]
    assert pairs[0][0] == path
    truth = pairs[0][1]
    np.testing.assert_array_equal(truth.boxes_xyxy, [[1, 2, 30, 40], [5, 5, 20, 20]])
    assert truth.class_ids.tolist() == [1, 0]
    assert truth.difficult.tolist() == [False, True]
    assert pairs[1][1].boxes_xyxy.shape == (0, 4)
    beside = ground_truth_beside(path, ("bus", "car"))
    np.testing.assert_array_equal(beside.boxes_xyxy, truth.boxes_xyxy)
    np.testing.assert_array_equal(beside.difficult, truth.difficult)
    assert beside.image_id == "b"


def test_ground_truth_tells_what_was_dealt_with(tmp_path):
    tree = VocTree(tmp_path)
    tree.add("a", object_xml(" car ", -0.5, 2, 30, 40), object_xml("cra", 1, 1, 2, 2), object_xml("cra", 3, 3, 5, 5))
    tree.split("test", "a", "a")
    remarks = FailFast()
    ((_, truth),) = load_ground_truth(tmp_path, "2007", "test", ("car",), remarks=remarks)
    np.testing.assert_array_equal(truth.boxes_xyxy, [[0, 2, 30, 40]])
    assert remarks.warnings == {
        "unknown class 'cra'": 2,
        "box clipped to the image": 1,
        "spaces around a name": 1,
        "image twice in a split": 1,
    }
    most = remarks.warning_lines()[0]
    assert most.startswith("warning: unknown class 'cra': 2, such as ")
    assert "did you mean 'car'?" in most
    tree.split("val", text="\n")
    with pytest.raises(DataError, match="empty"):
        load_ground_truth(tmp_path, "2007", "val", ("car",), remarks=remarks)


def test_ground_truth_never_skips(tmp_path):
    tree = VocTree(tmp_path)
    tree.add("good", CAR)
    tree.add("bad", object_xml("car", 5, 5, 5, 9))
    tree.split("test", "good", "bad")
    with pytest.raises(DataError, match=r"bad\.xml"):
        load_ground_truth(tmp_path, "2007", "test", ("car",))
    (tree.folder / "JPEGImages" / "good.jpg").unlink()
    with pytest.raises(DataError, match="no such image"):
        load_ground_truth(tmp_path, "2007", "test", ("car",))


def test_no_ground_truth_beside_an_image_outside_a_voc_folder(tmp_path):
    tree = VocTree(tmp_path)
    image = tree.add("a", CAR)
    assert ground_truth_beside(image, ("car",)) is not None
    annotation_path_for(tree.folder, "a").unlink()
    assert ground_truth_beside(image, ("car",)) is None
    assert ground_truth_beside(tmp_path / "photos" / "a.jpg", ("car",)) is None


def test_ground_truth_is_of_the_photo_as_it_is_shown(tmp_path):
    tree = VocTree(tmp_path)
    tree.write_xml("a", annotation_xml([CAR], (48, 64)))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tree.folder / "JPEGImages" / "a.jpg"
    Image.new("RGB", (64, 48)).save(path, exif=exif)
    assert len(ground_truth_beside(path, ("car",)).boxes_xyxy) == 1
    with pytest.raises(DataError, match="the image is 64x48"):
        ground_truth_beside(path, ("car",), ignore_exif=True)
