"""How voc_annotation.py splits a dataset and merges several."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.voc_trees import VocTree, annotate, files_below, object_xml
from utils.errors import ConfigError
from utils.problems import Problems
from utils.records import read_annotation_list
from utils.splits import SplitRule, find_sources

CAR = object_xml("car", 1, 2, 30, 40)


BUS = object_xml("bus", "0.5", 2, 30, 40)


def test_only_the_splits_that_exist(tmp_path):
    tree = VocTree(tmp_path / "devkit")
    tree.add("a", CAR)
    tree.split("test", "a")
    tree.split("val", text="\n")
    assert annotate("--voc", tree.root, "--out", tmp_path / "out", "--no-report") == 0
    assert files_below(tmp_path / "out") == {"2007_test.txt", "classes.txt"}


def split_tree(root: Path, stems: list[str], size_wh: tuple[int, int] = (64, 48)) -> VocTree:
    tree = VocTree(root)
    for stem in stems:
        tree.add(stem, CAR, size_wh=size_wh)
    return tree


def listed(out: Path) -> dict[str, set[str]]:
    return {
        path.name: {Path(record.image_path).stem for record in read_annotation_list(path)}
        for path in out.glob("2007_*.txt")
    }


def test_a_seeded_split_is_the_same_everywhere_and_can_be_copied_back(tmp_path, capsys):
    stems = [f"{i:03}" for i in range(40)]
    first, second = split_tree(tmp_path / "one", stems), split_tree(tmp_path / "two", stems[::-1])
    assert annotate("--voc", first.root, "--out", tmp_path / "a", "--no-report", "--seed", 3) == 0
    assert annotate("--voc", second.root, "--out", tmp_path / "b", "--no-report", "--seed", 3) == 0
    assert annotate("--voc", second.root, "--out", tmp_path / "c", "--no-report", "--seed", 4) == 0
    lists = listed(tmp_path / "a")
    # 40 * 0.9 = 36 for trainval, 36 * 0.9 = 32 of them for train
    assert {name: len(found) for name, found in lists.items()} == {
        "2007_train.txt": 32,
        "2007_val.txt": 4,
        "2007_test.txt": 4,
    }
    assert set.union(*lists.values()) == set(stems)
    assert lists == listed(tmp_path / "b")
    assert lists != listed(tmp_path / "c")
    assert not (first.folder / "ImageSets").exists()
    assert "copy" in capsys.readouterr().out

    (tmp_path / "a" / "VOC2007" / "ImageSets").rename(first.folder / "ImageSets")
    assert annotate("--voc", first.root, "--out", tmp_path / "again", "--no-report") == 0
    assert listed(tmp_path / "again") == lists
    assert annotate("--voc", first.root, "--out", tmp_path / "new", "--no-report", "--new-split", "--seed", 4) == 0
    assert listed(tmp_path / "new") == listed(tmp_path / "c")


def annotated(*arguments: object) -> None:
    assert annotate(*arguments, "--no-report") == 0


def test_with_photos_added_the_others_stay_where_they_were(tmp_path, capsys):
    tree, out = split_tree(tmp_path / "devkit", [f"{i:03} 1" for i in range(30)]), tmp_path / "out"
    command = ("--voc", tree.root, "--out", out, "--seed", 3)
    annotated(*command)
    before = listed(out)
    assert "new split (seed 3): to measure on it" in capsys.readouterr().out
    # Names that lie between the others.
    for i in range(10):
        tree.add(f"{i:03} 5", CAR)
    annotated(*command)
    after = listed(out)
    assert all(before[name] < after[name] for name in before)
    assert {name: len(stems) for name, stems in after.items()} == {
        "2007_train.txt": 32,
        "2007_val.txt": 4,
        "2007_test.txt": 4,
    }
    assert "the earlier split is kept, 10 new images joined it" in capsys.readouterr().out
    # One that is gone for a while comes back to where it was.
    annotation = tree.folder / "Annotations" / f"{min(after['2007_test.txt'])}.xml"
    annotation.rename(tmp_path / "elsewhere.xml")
    annotated(*command)
    assert listed(out) == {name: stems - {annotation.stem} for name, stems in after.items()}
    (tmp_path / "elsewhere.xml").rename(annotation)
    annotated(*command)
    assert listed(out) == after


@pytest.mark.parametrize("asked", [("--seed", 3, "--new-split"), ("--seed", 0), ("--seed", 3, "--train-percent", 0.8)])
def test_who_asks_for_another_split_gets_it(tmp_path, capsys, asked):
    tree, out = split_tree(tmp_path / "devkit", [f"{i:03}" for i in range(30)]), tmp_path / "out"
    annotated("--voc", tree.root, "--out", out, "--seed", 3)
    tree.add("0005", CAR)
    capsys.readouterr()
    annotated("--voc", tree.root, "--out", out, *asked)
    assert "in place of the earlier one" in capsys.readouterr().out
    annotated("--voc", tree.root, "--out", tmp_path / "fresh", *asked)
    assert listed(out) == listed(tmp_path / "fresh")


def test_splits_are_kept_by_folder_whatever_else_is_given(tmp_path):
    first, second = (split_tree(tmp_path / name, [f"{name}{i:02}" for i in range(20)]) for name in "ab")
    out = tmp_path / "out"
    annotated("--voc", first.root, second.root, "--out", out)
    before = listed(out)
    for tree in (first, second):
        tree.add(f"{tree.root.name}005", CAR)
    annotated("--voc", second.root, first.root, "--out", out)
    assert all(before[name] <= stems for name, stems in listed(out).items())
    annotated("--voc", second.root, "--out", out)
    assert all(stems <= before[name] | {"b005"} for name, stems in listed(out).items())
    # Given back to its folder it is the folder's own.
    (out / "VOC2007" / "ImageSets").rename(second.folder / "ImageSets")
    annotated("--voc", first.root, second.root, "--out", out)
    assert all(before[name] <= stems for name, stems in listed(out).items())


def test_a_part_that_a_split_has_no_more_is_no_image_set_and_no_list_any_more(tmp_path):
    tree, out = split_tree(tmp_path / "devkit", [f"{i:03}" for i in range(20)]), tmp_path / "out"
    annotated("--voc", tree.root, "--out", out)
    annotated("--voc", tree.root, "--out", out, "--trainval-percent", 1)
    sets = {path.name for path in (out / "VOC2007" / "ImageSets" / "Main").iterdir()}
    assert sets == {"train.txt", "val.txt", "trainval.txt"}
    assert set(listed(out)) == {"2007_train.txt", "2007_val.txt"}


def test_a_dataset_that_has_moved_keeps_its_split(tmp_path, capsys):
    tree, out = split_tree(tmp_path / "devkit", [f"{i:03}" for i in range(30)]), tmp_path / "out"
    annotated("--voc", tree.root, "--out", out)
    before, earlier = listed(out), tree.folder
    tree.folder = tree.root.rename(tmp_path / "moved") / "VOC2007"
    for i in range(10):
        tree.add(f"{i:03} 5", CAR)
    capsys.readouterr()
    annotated("--voc", tmp_path / "moved", "--out", out)
    assert f"the earlier split (of {earlier}) is kept, 10 new images joined it" in capsys.readouterr().out
    after = listed(out)
    assert all(before[name] < after[name] for name in before)
    annotated("--voc", tmp_path / "moved", "--out", out)
    assert listed(out) == after
    assert str(earlier) not in (out / "splits.json").read_text()


def test_a_copy_of_a_dataset_keeps_its_split_and_leaves_it_to_the_other(tmp_path, capsys):
    """A new version beside the old one; what the old one was learned from is not tested on."""
    tree, out = split_tree(tmp_path / "one", [f"{i:03}" for i in range(30)]), tmp_path / "out"
    annotated("--voc", tree.root, "--out", out)
    before = listed(out)
    copy = split_tree(tmp_path / "two", [f"{i:03}" for i in range(30)])
    for i in range(10):
        copy.add(f"{i:03} 5", CAR)
    # One that was edited does not hide that it is a copy.
    photos = copy.folder / "JPEGImages"
    (photos / "007.jpg").write_bytes((photos / "007.jpg").read_bytes() + b"x")
    capsys.readouterr()
    annotated("--voc", copy.root, "--out", out)
    assert f"the earlier split (of {tree.folder}) is kept, 10 new images joined it" in capsys.readouterr().out
    after = listed(out)
    assert all(before[name] < after[name] for name in before)
    annotated("--voc", tree.root, "--out", out)
    assert listed(out) == before
    # Both at once have each photo in one part, whichever folder it is of.
    annotated("--voc", tree.root, copy.root, "--out", out)
    assert listed(out) == after
    # Without photos the first is no more to be told from another dataset, and no reason to stop.
    shutil.rmtree(tree.folder / "JPEGImages")
    capsys.readouterr()
    annotated("--voc", split_tree(tmp_path / "three", [f"{i:03}" for i in range(30)]).root, "--out", out)
    assert f"the earlier split (of {copy.folder}) is kept, 0 new images" in capsys.readouterr().out


def test_a_copy_of_a_copy_keeps_what_both_had(tmp_path):
    """v10 sorts before v9."""
    stems, out = [f"{i:03}" for i in range(60)], tmp_path / "out"
    lists = {}
    for version, count in (("v9", 20), ("v10", 50), ("v11", 60)):
        annotated("--voc", split_tree(tmp_path / version, stems[:count]).root, "--out", out)
        lists[version] = listed(out)
    assert all(lists["v9"][name] <= lists["v10"][name] <= lists["v11"][name] for name in lists["v9"])


def test_a_copy_counts_more_than_a_dataset_that_is_gone(tmp_path):
    stems, out = [f"{i:03}" for i in range(40)], tmp_path / "out"
    zebras = split_tree(tmp_path / "zebras", ["0", "00", *stems], (60, 48))
    annotated("--voc", zebras.root, "--out", out)
    annotated("--voc", split_tree(tmp_path / "cars", stems).root, "--out", out)
    before = listed(out)
    shutil.rmtree(zebras.root)
    annotated("--voc", split_tree(tmp_path / "cars2", ["0", "00", *stems]).root, "--out", out)
    after = listed(out)
    assert all(before[name] <= after[name] for name in before)


def test_what_is_new_in_a_dataset_and_its_copy_is_in_one_part(tmp_path):
    stems, out = [f"{i:03}" for i in range(60)], tmp_path / "out"
    tree = split_tree(tmp_path / "b", stems[:30])
    annotated("--voc", tree.root, "--out", out)
    for stem in stems[30:]:
        tree.add(stem, CAR)
    copy = split_tree(tmp_path / "a", [*stems, *(f"{stem} 2" for stem in stems)])
    for roots in ((copy.root, tree.root), (tree.root, copy.root)):
        annotated("--voc", *roots, "--out", out)
        parts = [{Path(path).stem for path in found} for found in paths(out).values()]
        assert sum(map(len, parts)) == len(set().union(*parts)) == 120


def test_another_dataset_whose_photos_have_the_same_names_is_split_anew(tmp_path, capsys):
    out, stems = tmp_path / "out", [f"{i:03}" for i in range(20)]
    first = split_tree(tmp_path / "a", stems)
    annotated("--voc", first.root, "--out", out)
    for i in range(10):
        first.add(f"{i:03} 5", CAR)
    annotated("--voc", first.root, "--out", out)
    before = listed(out)
    capsys.readouterr()
    annotated("--voc", split_tree(tmp_path / "b", stems, (60, 48)).root, "--out", out)
    assert "new split (seed 0): to measure on it" in capsys.readouterr().out
    annotated("--voc", first.root, "--out", out)
    assert listed(out) == before


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_datasets_that_moved_together_keep_their_splits(tmp_path, order):
    out, stems = tmp_path / "out", [f"{i:03}" for i in range(20)]
    trees = [split_tree(tmp_path / "old" / "a", stems), split_tree(tmp_path / "old" / "b", stems[::2])]
    annotated("--voc", *(tree.root for tree in trees), "--out", out)
    for stem in stems[1::2]:
        trees[1].add(stem, CAR)
    annotated("--voc", *(tree.root for tree in trees), "--out", out)
    before = paths(out)
    (tmp_path / "old").rename(tmp_path / "new")
    annotated("--voc", *(tmp_path / "new" / name for name in order), "--out", out)
    assert {name: {path.replace("/new/", "/old/") for path in found} for name, found in paths(out).items()} == before


def paths(out: Path) -> dict[str, set[str]]:
    lists = {path.name: read_annotation_list(path) for path in out.glob("2007_*.txt")}
    return {name: {record.image_path for record in records} for name, records in lists.items()}


def test_lists_of_other_photos_stay(tmp_path, capsys):
    out = tmp_path / "out"
    first, second = split_tree(tmp_path / "trainval", ["a", "b"]), split_tree(tmp_path / "test", ["c"])
    first.split("train", "a")
    first.split("val", "b")
    second.split("test", "c")
    annotated("--voc", first.root, "--out", out)
    annotated("--voc", second.root, "--out", out)
    assert listed(out) == {"2007_train.txt": {"a"}, "2007_val.txt": {"b"}, "2007_test.txt": {"c"}}
    capsys.readouterr()
    first.split("val", text="")
    annotated("--voc", first.root, "--out", out)
    assert set(listed(out)) == {"2007_train.txt", "2007_test.txt"}
    assert f"removed {out / '2007_val.txt'}, an earlier list" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    [
        *(
            "{",
            "[]",
            '{"x": 1}',
            '{"x": {"rule": [1], "parts": {"y": []}}}',
            '{"x": {"rule": [1], "parts": ["train"]}}',
        ),
        *(f'{{"x": {{"rule": [1], "parts": {{"train": {part}}}}}}}' for part in ("null", "[1]", '"abc"')),
    ],
)
def test_a_damaged_memory_of_splits_is_named(tmp_path, capsys, text):
    tree = split_tree(tmp_path / "devkit", ["a", "b"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "splits.json").write_text(text)
    assert annotate("--voc", tree.root, "--out", tmp_path / "out") == 4
    assert re.search(r"splits\.json: .*: restore it, or remove it to split anew", capsys.readouterr().err)


def test_of_a_trainval_the_test_part_is_never_touched(tmp_path):
    tree, out = split_tree(tmp_path / "devkit", list("abcdefghij")), tmp_path / "out"
    tree.split("trainval", *"abcdef")
    tree.split("test", "i", "j")
    assert annotate("--voc", tree.root, "--out", out, "--no-report") == 0
    before = listed(out)
    tree.split("trainval", *"abcdefgh")
    tree.split("test", "j")
    assert annotate("--voc", tree.root, "--out", out, "--no-report") == 0
    after = listed(out)
    assert before["2007_train.txt"] <= after["2007_train.txt"]
    assert before["2007_val.txt"] <= after["2007_val.txt"]
    assert after["2007_test.txt"] == {"j"}


@pytest.mark.parametrize(
    ("images", "trainval", "train", "sizes"),
    [(1, 0.9, 0.9, [1]), (3, 0.9, 0.9, [1, 1, 1]), (10, 1, 0.8, [8, 2]), (10, 0.5, 1, [5, 5]), (4, 1, 1, [4])],
)
def test_shares_of_small_sets(tmp_path, images, trainval, train, sizes):
    tree = split_tree(tmp_path / "devkit", [str(i) for i in range(images)])
    (source,) = find_sources([tree.root], None, SplitRule(trainval, train), Problems())
    assert sorted(map(len, source.splits.values())) == sorted(sizes)
    assert "train" in source.splits


def test_trainval_alone_is_split(tmp_path):
    tree = split_tree(tmp_path / "devkit", list("abcdefghij"))
    tree.split("trainval", *"abcdefgh")
    tree.split("test", "i", "j")
    (source,) = find_sources([tree.root], None, SplitRule(train_share=0.75), Problems())
    assert {split: len(stems) for split, stems in source.splits.items()} == {"train": 6, "val": 2, "test": 2}
    assert source.cut == ("train", "val")


def test_several_roots_and_years_merge(tmp_path):
    first, second = VocTree(tmp_path / "site A"), VocTree(tmp_path / "site B")
    third = VocTree(tmp_path / "site B", "2012")
    for number, tree in enumerate((first, second, third)):
        tree.add("a", CAR)
        tree.add("b", BUS if number else CAR)
        tree.split("train", "a")
        tree.split("val", "b")
    out = tmp_path / "out"
    assert annotate("--voc", first.root, second.root, first.root, "--out", out, "--no-report") == 0
    assert files_below(out) == {"2007_train.txt", "2007_val.txt", "2012_train.txt", "2012_val.txt", "classes.txt"}
    paths = [record.image_path for record in read_annotation_list(out / "2007_train.txt")]
    assert paths == [str(tree.folder / "JPEGImages" / "a.jpg") for tree in (first, second)]
    only = tmp_path / "only"
    assert annotate("--voc", first.root, second.root, "--year", "2012", "--out", only, "--no-report") == 0
    assert files_below(only) == {"2012_train.txt", "2012_val.txt", "classes.txt"}


def test_dotted_stems_stay_distinct(tmp_path):
    tree = split_tree(tmp_path / "devkit", ["a.b", "a.c", "a"])
    tree.split("train", "a.b", "a.c", "a")
    assert annotate("--voc", tree.root, "--out", tmp_path / "out", "--no-report") == 0
    assert len({record.image_path for record in read_annotation_list(tmp_path / "out" / "2007_train.txt")}) == 3


def test_split_shares_out_of_range():
    for rule in ({"trainval_share": 0}, {"train_share": 1.1}, {"train_share": float("nan")}):
        with pytest.raises(ConfigError, match="percent"):
            SplitRule(**rule)
