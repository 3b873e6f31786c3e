from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest

from utils.errors import ConfigError, DataError
from utils.image_folders import part_of, read_image_folders, read_labelled_folder


def tree(root: Path, **counts: int) -> Path:
    """Empty image files; ``train__cat=3`` makes three in root/train/cat."""
    for name, count in counts.items():
        folder = root.joinpath(*name.split("__"))
        folder.mkdir(parents=True)
        for i in range(count):
            (folder / f"{i}.jpg").write_bytes(b"")
    return root


def names(images) -> list[str]:
    return [f"{Path(image.path).parent.name}/{Path(image.path).name}" for image in images]


def test_val_is_preferred_to_test(tmp_path: Path) -> None:
    tree(tmp_path, train__b=2, train__a=1, val__a=1, val__b=1, test__a=3, test__b=3)
    found = read_image_folders(tmp_path)
    assert found.class_names == ("a", "b")
    assert names(found.train) == ["a/0.jpg", "b/0.jpg", "b/1.jpg"]
    assert [image.class_id for image in found.train] == [0, 1, 1]
    assert len(found.val) == 2
    assert all("/val/" in image.path for image in found.val)


def test_with_only_test_beside_training_it_validates(tmp_path: Path) -> None:
    found = read_image_folders(tree(tmp_path, train__a=1, train__b=1, test__a=1, test__b=2))
    assert {Path(image.path).parent.parent.name for image in found.val} == {"test"}


@pytest.mark.parametrize("below", ["", "train__"])
def test_a_share_of_every_class_is_cut_off(tmp_path: Path, below: str) -> None:
    tree(tmp_path, **{f"{below}a": 10, f"{below}b": 5, f"{below}c": 2})
    found = read_image_folders(tmp_path, val_fraction=0.2)
    # A fifth of 10 and 5; of 2 at least one.
    assert Counter(image.class_id for image in found.val) == {0: 2, 1: 1, 2: 1}
    assert not set(found.train) & set(found.val)
    assert len(found.train) + len(found.val) == 17
    assert read_image_folders(tmp_path, val_fraction=0.2) == found
    assert read_image_folders(tmp_path, val_fraction=0.2, seed=1) != found


def test_the_cut_leaves_test_alone(tmp_path: Path) -> None:
    tree(tmp_path, train__a=4, train__b=4, test__a=3, test__b=3)
    found = read_image_folders(tmp_path, val_fraction=0.25)
    assert len(found.train) + len(found.val) == 8
    assert all("/train/" in image.path for image in found.train + found.val)


def test_the_cut_depends_on_names_alone(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for root, order in ((first, range(20)), (second, reversed(range(20)))):
        for i in order:
            tree(root, a=0, b=0) if not root.exists() else None
            for name in "ab":
                (root / name / f"{i}.png").write_bytes(b"")
    cut = [names(read_image_folders(root, 0.3, seed=5).val) for root in (first, second)]
    assert cut[0] == cut[1]


@pytest.mark.parametrize("added", ["new0.jpg", "new1.jpg", "new2.jpg", "new3.jpg", "0a.jpg"])
@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
def test_an_image_added_moves_at_most_one_other(tmp_path: Path, fraction: float, added: str) -> None:
    tree(tmp_path, a=29, b=30)
    before = read_image_folders(tmp_path, fraction, seed=3)
    (tmp_path / "a" / added).write_bytes(b"")
    after = read_image_folders(tmp_path, fraction, seed=3)
    assert len(set(names(before.val)) ^ set(names(after.val)) - {f"a/{added}"}) <= 1


def test_a_class_added_before_the_others_moves_none_of_their_images(tmp_path: Path) -> None:
    before = read_image_folders(tree(tmp_path, b=20, c=20), 0.3)
    after = read_image_folders(tree(tmp_path, a=20), 0.3)
    assert names(before.val) == [name for name in names(after.val) if not name.startswith("a/")]


def test_photos_that_are_not_read_are_counted_by_suffix(tmp_path: Path) -> None:
    tree(tmp_path, a=2, b=2)
    for i in range(3):
        (tmp_path / "a" / f"{i}.HEIC").write_bytes(b"")
        (tmp_path / "b" / f"{i}.heic").write_bytes(b"")
    (tmp_path / "b" / "Thumbs.db").write_bytes(b"")
    (tmp_path / "b" / ".DS_Store").write_bytes(b"")
    heard: list[str] = []
    assert len(read_labelled_folder(tmp_path, ("a", "b"), heard.append)) == 4
    assert heard == [f"{tmp_path}: .heic: 6 files, .db: 1 file left out: convert photos to JPEG"]
    for path in (tmp_path / "a").glob("*.jpg"):
        path.unlink()
    with pytest.raises(DataError, match=r"no image in this class folder: \.heic: 3 files left out: convert photos to"):
        read_labelled_folder(tmp_path, ("a", "b"))


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    tree(tmp_path, train=4, test=4, val=4, plane=4)
    found = read_image_folders(tmp_path, 0.25)
    assert found.class_names == ("plane", "test", "train", "val")
    assert Counter(image.class_id for image in found.val) == {0: 1, 1: 1, 2: 1, 3: 1}
    heard: list[str] = []
    assert part_of(tmp_path, warn=heard.append) == tmp_path
    assert heard == [
        f"{tmp_path}: measured whole, any images that were trained on included; --split names a folder of it"
    ]


def test_what_is_measured_is_test_then_val_and_what_is_named(tmp_path: Path) -> None:
    heard: list[str] = []
    tree(tmp_path, train__a=2)
    with pytest.raises(ConfigError, match="holds train/ alone: --split train measures on what was trained on"):
        part_of(tmp_path, warn=heard.append)
    tree(tmp_path, valid__a=2)
    with pytest.raises(ConfigError, match="no test/ or val/: give --split with one of 'valid'"):
        part_of(tmp_path)
    tree(tmp_path, val__a=2)
    assert part_of(tmp_path, warn=heard.append) == tmp_path / "val"
    tree(tmp_path, test__a=2)
    assert part_of(tmp_path, warn=heard.append) == tmp_path / "test"
    assert part_of(tmp_path, "train", heard.append) == tmp_path / "train"
    assert heard == []


@pytest.mark.parametrize("name", ["می\u200cخواهم", "全角\u3000空白", "co\u00adop", "naïve 😀"])
def test_class_names_in_any_script(tmp_path: Path, name: str) -> None:
    assert name in read_image_folders(tree(tmp_path, **{name: 2, "b": 2}), 0.5).class_names


def test_classes_sort_by_code_point_and_images_by_name(tmp_path: Path) -> None:
    found = read_image_folders(tree(tmp_path, ä=2, B=2, a=2), val_fraction=0.5)
    assert found.class_names == ("B", "a", "ä")


def test_hidden_and_foreign_files_are_passed_over_and_said_where_it_matters(tmp_path: Path) -> None:
    tree(tmp_path, train__a=2, train__b=2, train__a__more=3, val__a=1, val__b=1)
    (tmp_path / "train" / ".cache").mkdir()
    (tmp_path / "train" / "a" / ".hidden.jpg").write_bytes(b"")
    (tmp_path / "train" / "a" / "notes.txt").write_text("x")
    (tmp_path / "train" / "stray.png").write_bytes(b"")
    (tmp_path / "train" / "b" / "LOUD.JPG").write_bytes(b"")
    heard: list[str] = []
    found = read_image_folders(tmp_path, warn=heard.append)
    assert names(found.train) == ["a/0.jpg", "a/1.jpg", "b/0.jpg", "b/1.jpg", "b/LOUD.JPG"]
    assert len(heard) == 3
    assert "stray.png" in heard[0]
    assert "'more'" in heard[1]
    assert heard[2] == f"{tmp_path / 'train'}: .txt: 1 file left out: convert photos to JPEG"


def test_links_are_followed_unless_they_join_the_two_parts(tmp_path: Path) -> None:
    tree(tmp_path, train__a=2, train__b=2, val__a=1, val__b=1, elsewhere=1)
    os.symlink(tmp_path / "elsewhere" / "0.jpg", tmp_path / "train" / "a" / "link.jpg")
    assert len(read_image_folders(tmp_path).train) == 5
    os.symlink(tmp_path / "elsewhere", tmp_path / "train" / "c")
    os.symlink(tmp_path / "elsewhere", tmp_path / "val" / "c")
    with pytest.raises(DataError, match=r"val/c/0\.jpg: in the training and the validation part"):
        read_image_folders(tmp_path)


@pytest.mark.parametrize(
    ("counts", "fraction", "error", "said"),
    [
        ({"train__a": 1, "train__b": 1}, 0, ConfigError, "nothing to validate on"),
        ({"a": 2, "b": 2}, 0, ConfigError, "nothing to validate on"),
        ({"val__a": 1, "val__b": 1}, 0, ConfigError, "holds val/ but no train/"),
        ({"train__a": 1, "train__b": 1, "val__a": 1, "val__b": 1}, 0.2, ConfigError, "holds val/ to validate on"),
        ({"train__a": 3, "val__a": 3}, 0, DataError, "only one class, 'a'"),
        ({"train__a": 1, "train__b": 0, "val__a": 1, "val__b": 1}, 0, DataError, "train/b: no image"),
        ({"a": 1, "b": 2}, 0.5, DataError, "the only image of class 'a'"),
        ({"train__cat": 1, "train__dog": 1, "val__cat": 1, "val__dgo": 1}, 0, DataError, "others; did you mean 'dog'?"),
        ({"train__a": 1, "train__b": 1, "val__a": 1}, 0, DataError, "val: no folder for 'b'"),
        ({"a": 2, " b": 2}, 0.5, DataError, "' b': cannot be the name of a class"),
        ({"a": 2, "b\nc": 2}, 0.5, DataError, "cannot be the name of a class"),
        ({"a": 2, "b\u2028c": 2}, 0.5, DataError, "cannot be the name of a class"),
        ({"a": 2, "b\udcffc": 2}, 0.5, DataError, "cannot be the name of a class"),
        ({"a": 2, "b": 0, "b__deep": 2}, 0.5, DataError, "'deep': folders in a class folder are not searched"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_line(tmp_path: Path, counts, fraction, error, said: str) -> None:
    tree(tmp_path, **counts)
    with pytest.raises(error, match=re.escape(said)) as caught:
        read_image_folders(tmp_path, fraction)
    assert "\n" not in str(caught.value)


def test_folders_that_are_missing_empty_or_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such directory"):
        read_image_folders(tmp_path / "nowhere", 0.2)
    with pytest.raises(DataError, match="holds no folder"):
        read_image_folders(tmp_path, 0.2)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        read_image_folders(tmp_path / "file", 0.2)


def test_a_part_to_measure_may_lack_classes_but_not_bring_others(tmp_path: Path) -> None:
    tree(tmp_path, b=2)
    assert [image.class_id for image in read_labelled_folder(tmp_path, ("a", "b", "c"))] == [1, 1]
    with pytest.raises(DataError, match="'b': no class of the others"):
        read_labelled_folder(tmp_path, ("a", "c"))
