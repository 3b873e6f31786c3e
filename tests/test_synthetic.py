"""The drawn dataset: the same from the same seed, labelled tightly, and as varied as it claims to be."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest

import make_dataset as door
from tests.conftest import ROOT
from utils.annotations import parse_annotation
from utils.door import run_door
from utils.errors import ConfigError
from utils.synthetic import CLASS_NAMES, make_dataset
from utils.synthetic_distractors import DISTRACTORS
from utils.synthetic_objects import OBJECTS
from utils.synthetic_scene import (
    DIFFICULT_VISIBLE,
    MIN_VISIBLE,
    Scene,
    draw_photo,
    draw_scene,
)

IMAGES = 40


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    make_dataset(root, IMAGES, seed=7)
    return root / "VOC2007"


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(np.random.default_rng((1, index)), (240, 320)) for index in range(60)]


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        make_dataset(tmp_path / name, 6, seed)
    first, again, other = (_digests(tmp_path / name) for name in ("first", "again", "other"))
    assert first == again
    photos = [name for name in first if name.endswith(".jpg")]
    assert len({first[name] for name in photos} | {other[name] for name in photos}) == 12


def test_a_picture_does_not_depend_on_how_many_there_are(drawn: Path, tmp_path: Path) -> None:
    make_dataset(tmp_path, 5, seed=7)
    small, large = _digests(tmp_path / "VOC2007"), _digests(drawn)
    names = [name for name in small if not name.startswith("ImageSets")]
    assert len(names) == 10
    assert all(small[name] == large[name] for name in names)


def test_splits_are_disjoint_and_complete(drawn: Path) -> None:
    sets = {path.stem: path.read_text().split() for path in (drawn / "ImageSets" / "Main").iterdir()}
    assert set(sets) == {"train", "val", "trainval", "test"}
    assert sorted(sets["train"] + sets["val"] + sets["test"]) == [f"{i:06d}" for i in range(1, IMAGES + 1)]
    assert sorted(sets["train"] + sets["val"]) == sets["trainval"]
    # 18 % and 7 % of 40
    assert len(sets["test"]) == 7
    assert len(sets["val"]) == 3
    assert {p.stem for p in (drawn / "JPEGImages").iterdir()} == {p.stem for p in (drawn / "Annotations").iterdir()}


def test_every_annotation_reads_back_and_agrees_with_its_photo(drawn: Path) -> None:
    seen = set()
    for xml in sorted((drawn / "Annotations").iterdir()):
        annotation = parse_annotation(xml)
        image = cv2.imread(str(drawn / "JPEGImages" / f"{xml.stem}.jpg"))
        assert image is not None
        assert annotation.size_hw == image.shape[:2]
        for thing in annotation.objects:
            left, top, right, bottom = thing.box_xyxy
            assert 0 <= left < right <= image.shape[1]
            assert 0 <= top < bottom <= image.shape[0]
            seen.add(thing.name)
    assert seen == set(CLASS_NAMES) == set(OBJECTS)


def test_labels_are_as_tight_as_the_visible_pixels(scenes: list[Scene]) -> None:
    checked = 0
    for scene in scenes:
        for thing, number in zip(scene.objects, scene.owners, strict=True):
            rows, columns = np.nonzero(scene.owner == number)
            expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert thing.box_xyxy == expected
            checked += 1
    assert checked > 100


def test_a_label_covers_what_was_painted() -> None:
    """The pixels that a thing changes, against its label: they may differ by the soft edge alone."""
    from utils import synthetic_scene

    rng = np.random.default_rng(5)
    for name, draw in OBJECTS.items():
        patch = synthetic_scene._render(rng, draw, 60.0, np.array([0.0, -0.7, 0.7]), 0.5)
        image, owner = np.full((120, 120, 3), 300.0, np.float32), np.full((120, 120), -1, np.int16)
        thing = synthetic_scene._Thing(name, patch, 20, 30)
        synthetic_scene._lay(image, owner, thing, 0, np.array([0.0, -1.0]), 0.0)
        rows, columns = np.nonzero((image < 290).any(axis=-1))
        (label,), _, (visible,) = synthetic_scene._labels([thing], owner)
        painted = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        np.testing.assert_allclose(label.box_xyxy, painted, atol=1)
        assert visible == 1
        assert max(label.box_xyxy[2] - 20, label.box_xyxy[3] - 30) == 60


def test_things_that_can_hardly_be_seen_have_no_label(scenes: list[Scene]) -> None:
    flags = [(t.difficult, share) for scene in scenes for t, share in zip(scene.objects, scene.visible, strict=True)]
    assert all(share >= MIN_VISIBLE for _, share in flags)
    assert all(difficult == (share < DIFFICULT_VISIBLE) for difficult, share in flags)
    assert any(share < 0.9 for _, share in flags)


def test_sizes_and_counts_are_as_varied_as_promised(scenes: list[Scene]) -> None:
    counts = [len(scene.objects) for scene in scenes]
    assert min(counts) == 0
    assert 6 <= max(counts) <= 12
    boxes = np.array([thing.box_xyxy for scene in scenes for thing in scene.objects])
    long_sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    assert long_sides.min() < 24
    assert long_sides.max() > 0.55 * 240
    assert 30 < np.median(long_sides) < 110
    assert len({scene.owner.shape for scene in scenes}) > 20


def test_difficult_and_cut_off_things_occur() -> None:
    things, sizes = [], []
    for index in range(120):
        scene = draw_scene(np.random.default_rng((2, index)), (120, 160), 0.9)
        things += scene.objects
        sizes += [scene.owner.shape] * len(scene.objects)
    assert any(thing.difficult for thing in things)
    cut = [t.box_xyxy[0] == 0 or t.box_xyxy[2] == w for t, (_, w) in zip(things, sizes, strict=True)]
    assert 0.02 < np.mean(cut) < 0.3


@pytest.mark.parametrize("draw", [*OBJECTS.values(), *DISTRACTORS], ids=lambda draw: draw.__name__.strip("_"))
@pytest.mark.parametrize("side_px", [64, 200])
def test_everything_that_is_drawn_lies_inside_its_canvas(draw, side_px: int) -> None:
    for seed in range(4):
        canvas = draw(np.random.default_rng(seed), side_px, np.array([0.4, -0.6, 0.7]))
        assert canvas.rgb.shape == (side_px, side_px, 3)
        assert canvas.rgb.dtype == canvas.alpha.dtype == np.uint8
        assert 0.1 < (canvas.alpha > 127).mean() < 0.9
        border = np.concatenate([canvas.alpha[0], canvas.alpha[-1], canvas.alpha[:, 0], canvas.alpha[:, -1]])
        assert (border > 127).mean() < 0.1
        assert canvas.rgb[canvas.alpha > 127].std() > 3


def test_colour_alone_does_not_decide_the_class() -> None:
    """The class of the nearest mean colour is often right, as with real things, but not nine times in ten."""
    rng, light = np.random.default_rng(0), np.array([0.0, -0.7, 0.7])
    colours = []
    for draw in OBJECTS.values():
        canvases = [draw(rng, 64, light) for _ in range(80)]
        colours.append([canvas.rgb[canvas.alpha > 127].mean(axis=0) for canvas in canvases])
    points = np.array(colours)
    known, asked = points[:, :40].mean(axis=1), points[:, 40:]
    nearest = np.linalg.norm(asked[:, :, None] - known, axis=-1).argmin(axis=-1)
    right = (nearest == np.arange(len(OBJECTS))[:, None]).mean()
    assert 0.4 < right < 0.9


def test_photos_are_textured_and_noisy() -> None:
    jpeg, _, size_hw = draw_photo(0, 1, (120, 160), 0.4)
    image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape[:2] == size_hw
    assert image.std() > 8
    assert cv2.Laplacian(image, cv2.CV_32F).std() > 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"images": 2}, "images: 2: must be at least 3"),
        ({"size_hw": (10, 320)}, "size: 320x10"),
        ({"difficulty": 1.5}, "difficulty: 1.5"),
        ({"seed": -1}, "seed: -1"),
    ],
)
def test_impossible_wishes_are_refused(tmp_path: Path, arguments: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        make_dataset(tmp_path, **{"images": 3, "seed": 0, **arguments})
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten_and_nothing_half_done_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine" / "VOC2007").mkdir(parents=True)
    with pytest.raises(ConfigError, match="exists already"):
        make_dataset(tmp_path / "mine", 3, seed=0)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("utils.synthetic.draw_photo", stop)
    with pytest.raises(KeyboardInterrupt):
        make_dataset(tmp_path / "new", 3, seed=0)
    assert list((tmp_path / "new").iterdir()) == []


def test_the_door_draws_and_says_where(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "VOCdevkit"
    command = ["--out", str(out), "--images", "3", "--seed", "1", "--width", "160", "--height", "120"]
    assert run_door(lambda: door.main([*command, "--preview", str(tmp_path / "preview.jpg")])) == 0
    assert "3 pictures of ball, key, leaf, mug, sign" in capsys.readouterr().out
    preview = cv2.imread(str(tmp_path / "preview.jpg"))
    assert preview is not None
    assert preview.shape[1] > 3 * 160
    assert len(list((out / "VOC2007" / "JPEGImages").glob("*.jpg"))) == 3
    assert run_door(lambda: door.main(command)) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--images", "none"], ["--difficulty", "2"], ["--seed", "-1"], ["--colour"], []])
def test_the_door_explains_wrong_usage_in_one_line(
    tmp_path: Path, wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--out", str(tmp_path), *wrong] if wrong else []
    assert run_door(lambda: door.main(command)) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_door_needs_no_tensorflow() -> None:
    import subprocess
    import sys

    code = (
        "import sys, make_dataset; sys.exit(any(name.split('.')[0] in {'tensorflow', 'keras'} for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
