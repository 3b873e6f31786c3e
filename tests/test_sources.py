from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from engine.naming import name_outputs, refuse_overwriting
from engine.sources import ImageInput, Sources, VideoInput, find_sources
from utils.errors import ConfigError, DataError

BEST = Path("best")


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in ("a.jpg", "b.PNG", "clip.mp4", "notes.txt", ".hidden.jpg", "sub/c.jpg", "sub/deep/a.jpg"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "in"


def paths(sources: Sources) -> list[str]:
    return [str(image.path) for image in sources.images]


def test_a_directory_gives_its_pictures_and_videos(tree):
    found = find_sources(["in"])
    assert paths(found) == ["in/a.jpg", "in/b.PNG"]
    assert found.videos == (VideoInput(Path("in/clip.mp4")),)


def test_files_of_a_directory_that_are_not_read_are_counted(tree):
    assert find_sources(["in"]).unread == ("in: .txt: 1 file left out: convert photos to JPEG",)
    assert find_sources(["in/a.jpg", "in/sub"]).unread == ()
    (tree / "sub" / "IMG_1.HEIC").touch()
    (tree / "sub" / "c.jpg").unlink()
    with pytest.raises(DataError, match=r"no image or video in this directory; \.heic: 1 file left out: convert"):
        find_sources(["in/sub"])


def test_recursive_goes_below_and_remembers_where(tree):
    found = find_sources(["in"], recursive=True)
    assert [(str(i.path), str(i.folder)) for i in found.images] == [
        ("in/a.jpg", "."),
        ("in/b.PNG", "."),
        ("in/sub/c.jpg", "sub"),
        ("in/sub/deep/a.jpg", "sub/deep"),
    ]


def test_results_of_an_earlier_run_are_no_inputs(tree):
    assert paths(find_sources(["in"], recursive=True, skip=tree / "sub")) == ["in/a.jpg", "in/b.PNG"]
    assert paths(find_sources(["in/**/*.jpg"], skip=tree / "sub")) == ["in/a.jpg"]


def test_patterns_files_and_numbers(tree):
    assert paths(find_sources(["in/*.jpg"])) == ["in/a.jpg"]
    assert paths(find_sources(["in/**/*.jpg"])) == ["in/a.jpg", "in/sub/c.jpg", "in/sub/deep/a.jpg"]
    assert find_sources(["0"]).videos == (VideoInput(0),)
    assert find_sources(["rtsp://camera/1"]).videos == (VideoInput("rtsp://camera/1"),)


def test_each_file_is_taken_once_in_the_order_given(tree):
    assert paths(find_sources(["in/b.PNG", "in", "in/sub/../a.jpg"])) == ["in/b.PNG", "in/a.jpg"]


def test_a_file_whose_name_is_a_number_or_a_pattern_is_that_file(tree):
    (tree.parent / "7").touch()
    (tree.parent / "a[1].jpg").touch()
    assert paths(find_sources(["7", "a[1].jpg"])) == ["7", "a[1].jpg"]


@pytest.mark.parametrize(
    ("argument", "error", "says"),
    [
        ("in/a.jgp", ConfigError, "did you mean 'a.jpg'"),
        ("inn/a.jpg", ConfigError, "inn does not exist; did you mean 'in'"),
        ("in/*.gif", ConfigError, "no file matches"),
        ("in/empty", DataError, "no image or video"),
        ("-1", ConfigError, "no such file"),
        ("", ConfigError, "is empty"),
    ],
)
def test_what_is_not_there_is_said(tree, argument, error, says):
    (tree / "empty").mkdir()
    with pytest.raises(error, match=says.replace("*", r"\*")):
        find_sources([argument])


def test_a_list_names_sources_one_a_line(tree):
    listed = tree.parent / "list.txt"
    listed.write_bytes(b"\xef\xbb\xbfin/b.PNG\r\n\r\nin/*.mp4\r\nin/sub/deep\r\n0")
    found = find_sources(["in/a.jpg"], list_file=listed)
    assert paths(found) == ["in/a.jpg", "in/b.PNG", "in/sub/deep/a.jpg"]
    assert found.videos == (VideoInput(Path("in/clip.mp4")), VideoInput(0))


def test_a_list_takes_names_as_they_are(tree):
    name = os.fsdecode(b"in/ caf\xe9 #1.jpg ")
    try:
        Path(name).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert paths(find_sources(["-"], stdin=io.BytesIO(os.fsencode(name) + b"\n"))) == [name]


def test_stdin_is_told_apart_by_what_it_holds(tree):
    header = b"BM\x00\x00"
    (tree.parent / "BMW.jpg").touch()
    assert find_sources(["-", "-"], stdin=io.BytesIO(header)).images == (ImageInput(Path("stdin.bmp"), data=header),)
    assert find_sources(["-"], stdin=io.BytesIO(header)).files == []
    assert paths(find_sources(["-", "in/a.jpg"], stdin=io.BytesIO(b"BMW.jpg"))) == ["BMW.jpg", "in/a.jpg"]


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (b"", ConfigError, "stdin: is empty"),
        (b"\r\n\n", ConfigError, "stdin: is empty"),
        (b"in/b.jgp\nin/a.jgp", ConfigError, "stdin: line 1: in/b.jgp: no such file.* \\(and 1 more like it\\)"),
        (b"-", ConfigError, "stdin: line 1: -: no such file"),
    ],
)
def test_what_is_wrong_with_a_list_is_said_with_its_line(tree, data, error, says):
    with pytest.raises(error, match=says):
        find_sources(["-"], stdin=io.BytesIO(data))


def test_what_is_missing_is_told_with_what_is_there(tree):
    (tree.parent / "none").mkdir()
    found = find_sources(["none", "in/a.jpg", "-"], stdin=io.BytesIO(b"in/b.PNG\nin/a.jgp"))
    assert paths(found) == ["in/a.jpg", "in/b.PNG"]
    assert [(one.source, one.error.exit_code) for one in found.failed] == [("none", 3), ("in/a.jgp", 3)]
    assert "stdin: line 2: in/a.jgp: no such file or directory; did you mean 'a.jpg'?" in str(found.failed[1].error)


def images(*names: str) -> Sources:
    return Sources(tuple(ImageInput(Path(name)) for name in names), ())


def named(sources: Sources) -> list[tuple[str, str]]:
    return [(str(name.picture), str(name.stem)) for name in name_outputs(sources)]


def test_outputs_keep_their_names():
    assert named(images("x/a.jpg", "y/b.png")) == [("a.jpg", "a"), ("b.png", "b")]


def test_pictures_that_differ_in_suffix_keep_names_and_have_text_files_of_their_own():
    assert named(images("a.jpg", "a.png")) == [("a.jpg", "a.jpg"), ("a.png", "a.png")]


def test_pictures_of_one_name_are_both_kept():
    assert named(images("x/a.jpg", "y/a.jpg", "z/A.JPG")) == [("a.jpg", "a"), ("a_2.jpg", "a_2"), ("A_3.JPG", "A_3")]


def test_who_gives_way_takes_the_name_of_nobody_else():
    assert named(images("IMG_1.JPG", "img_1.jpg", "img_1_2.jpg", "img_1_4.jpg", "x/IMG_1.jpg")) == [
        ("IMG_1.JPG", "IMG_1"), ("img_1_3.jpg", "img_1_3"), ("img_1_2.jpg", "img_1_2"), ("img_1_4.jpg", "img_1_4"),
        ("IMG_1_5.jpg", "IMG_1_5")
    ]  # fmt: skip


def test_no_two_outputs_ever_meet():
    made = named(
        images("a.jpg", "x/a.jpg", "a_2.jpg", "a.png", "a.jpg.png", "y/a.jpg.png", "a.gif", "a.b.jpg", "a.c.jpg")
    )
    assert len({picture.lower() for picture, _ in made}) == len(made)
    assert len({stem.lower() for _, stem in made}) == len(made)


def test_formats_that_are_not_written_become_png():
    # What goes beside them keeps their own names, by which VOC finds them.
    assert named(images("a.gif", "b", "c.jfif")) == [("a.gif.png", "a"), ("b.png", "b"), ("c.jfif.png", "c")]
    assert named(images("a.gif", "a.jpg", "x/a.gif")) == [
        ("a.gif.png", "a.gif.png"), ("a.jpg", "a.jpg"), ("a.gif_2.png", "a.gif_2")
    ]  # fmt: skip


def test_folders_below_a_searched_directory_are_kept(tree):
    names = [str(name.picture) for name in name_outputs(find_sources(["in"], recursive=True))]
    assert names == ["a.jpg", "b.PNG", "sub/c.jpg", "sub/deep/a.jpg", "clip.mp4"]


def test_videos_are_named_after_their_source():
    sources = Sources(
        (), tuple(map(VideoInput, (Path("x/a.mp4"), Path("y/a.mp4"), Path("b.wmv"), 0, "rtsp://host:1/live/cam 1?k=2")))
    )
    assert [picture for picture, _ in named(sources)] == [
        "a.mp4",
        "a_2.mp4",
        "b.mp4",
        "webcam0.mp4",
        "stream_cam_1.mp4",
    ]


def test_frames_of_a_video_and_photos_of_their_names_are_all_kept():
    photos = tuple(ImageInput(Path(name)) for name in ("clip_000000.jpg", "CLIP_000001.png", "other_1.png"))
    made = name_outputs(Sources(photos, (VideoInput(Path("clip.mp4")), VideoInput(Path("other.mp4")))))
    assert [str(name.stem) for name in made] == ["clip_000000", "CLIP_000001", "other_1", "clip.mp4", "other"]


@pytest.mark.parametrize("order", [1, -1])
def test_what_becomes_avi_meets_no_other_video(order):
    videos = tuple(VideoInput(Path(name)) for name in ("clip.mp4", "clip.mp4.avi")[::order])
    made = [str(name.picture) for name in name_outputs(Sources((), videos))]
    assert made == (["clip.mp4", "clip.mp4_2.avi"] if order > 0 else ["clip.mp4.avi", "clip_2.mp4"])


@pytest.mark.parametrize("name", ["a.jpg", "yolo/classes.txt", "txt/a.txt", "crops/a.json"])
def test_results_do_not_go_onto_other_results(tree, name):
    with pytest.raises(ConfigError, match="lies where a result would go"):
        refuse_overwriting(find_sources(["in/a.jpg"]), Path("out"), [Path("out", name)], BEST)


def test_results_do_not_go_below_a_file(tree):
    for out in ("in/a.jpg", "in/a.jpg/deeper"):
        with pytest.raises(ConfigError, match=rf"--out: {out}: in/a\.jpg is a file; give a folder"):
            refuse_overwriting(find_sources(["in"]), Path(out), [], BEST)


def test_results_never_go_where_inputs_lie(tree):
    with pytest.raises(ConfigError, match="directory of the input"):
        refuse_overwriting(find_sources(["in"]), Path("in"), [], BEST)
    with pytest.raises(ConfigError, match="directory of the input"):
        refuse_overwriting(find_sources(["in/a.jpg"]), tree / "sub" / "..", [], BEST)
    with pytest.raises(ConfigError, match="would go"):
        refuse_overwriting(Sources((ImageInput(Path("in/sub/c.jpg"), Path("sub")),), ()), Path("in"), [], BEST)
    with pytest.raises(ConfigError, match="one of the inputs"):
        refuse_overwriting(find_sources(["in"]), Path("out"), [Path("in/a.jpg")], BEST)
    os.symlink(tree, tree.parent / "link")
    with pytest.raises(ConfigError):
        refuse_overwriting(find_sources(["in"]), Path("link"), [], BEST)
    refuse_overwriting(find_sources(["in"]), Path("out"), [Path("out/a.json")], BEST)


@pytest.mark.parametrize(
    "place", ["a.jpg", "txt/sub/a.txt", "crops/cat/a_1.jpg", "heatmaps/a.jpg", "voc/a.xml", "yolo/classes.txt"]
)
def test_results_never_go_onto_the_weights_or_another_input(tree, place):
    target = Path("out") / place
    target.parent.mkdir(parents=True)
    target.write_bytes(b"")
    with pytest.raises(ConfigError, match=f"{target} lies where a result would go"):
        refuse_overwriting(find_sources(["in/a.jpg"]), Path("out"), [], target)
    if place != "a.jpg":
        with pytest.raises(ConfigError, match=f"{target} lies where a result would go"):
            refuse_overwriting(find_sources(["in/a.jpg", str(target)]), Path("out"), [], BEST)
    refuse_overwriting(find_sources(["in/a.jpg"]), Path("out"), [], Path("out/best"))


def test_results_of_a_searched_folder_never_go_onto_an_input_of_that_name(tree):
    target = Path("out/sub/c.jpg")
    target.parent.mkdir(parents=True)
    target.write_bytes(b"")
    with pytest.raises(ConfigError, match="would go"):
        refuse_overwriting(find_sources(["in", str(target)], recursive=True), Path("out"), [], BEST)


def test_a_name_that_no_file_can_have_does_not_keep_the_others_back(tree):
    found = find_sources(["in/a.jpg", "x" * 300])
    assert paths(found) == ["in/a.jpg"]
    (failure,) = found.failed
    assert "cannot be looked at" in str(failure.error)
