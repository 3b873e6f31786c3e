from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from utils import fonts
from utils.contact_sheet import contact_sheet
from utils.draw import Style, _place_labels, draw_boxes, draw_detections, drawable_name, overlay_heat
from utils.palette import BLACK, WHITE, class_colour, text_colour
from utils.types import Detections


def detections(boxes: list[list[float]], names: list[str] | None = None, ids: list[int] | None = None) -> Detections:
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.5, count).astype(np.float32),
        np.array(ids or [0] * count, np.int64),
        tuple(names or ["dog"] * count),
    )


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def test_colours_are_stable_and_far_apart():
    colours = [class_colour(i) for i in range(20)]
    assert colours == [class_colour(i) for i in range(20)]
    gaps = [np.abs(np.subtract(a, b)).sum() for i, a in enumerate(colours) for b in colours[:i]]
    assert min(gaps) >= 30


@pytest.mark.parametrize("class_id", range(60))
def test_text_on_a_class_colour_has_a_contrast_of_at_least_4_5(class_id):
    def luminance(colour):
        srgb = np.array(colour) / 255
        return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    pair = sorted([luminance(class_colour(class_id)), luminance(text_colour(class_colour(class_id)))])
    assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5


def test_text_is_black_on_white_and_white_on_black():
    assert (text_colour((255, 255, 255)), text_colour((0, 0, 0))) == (BLACK, WHITE)


def test_the_image_is_copied_and_the_frame_lies_on_the_box():
    image = grey(480, 640)
    drawn = draw_detections(image, detections([[100, 200, 300, 400]]))
    assert (image == 128).all()
    assert drawn.shape == image.shape
    colour = np.array(class_colour(0))
    for y, x in [(300, 100), (300, 299), (399, 200)]:
        assert (drawn[y, x] == colour).all()
    assert (drawn[220:380, 120:280] == 128).all()


def test_in_place_the_image_itself_is_drawn_onto_where_it_can_be():
    image, found = grey(480, 640), detections([[100, 200, 300, 400]])
    expected = draw_detections(image, found)
    locked = image.copy()
    locked.flags.writeable = False
    assert (found.draw(locked, in_place=True) == expected).all()
    assert (locked == 128).all()
    assert found.draw(image, in_place=True) is image
    assert (image == expected).all()


def test_no_detections_change_nothing():
    image = np.random.default_rng(0).integers(0, 255, (30, 40, 3)).astype(np.uint8)
    assert (draw_detections(image, Detections.empty()) == image).all()


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 500), (500, 1), (7, 9), (32, 32), (40, 2000), (480, 640)])
@pytest.mark.parametrize("box", [(0, 0, 1, 1), (0.2, 0.2, 0.4, 0.4), (-0.5, -0.5, 1.5, 1.5), (0.9, 0.9, 1, 1)])
def test_any_box_on_any_size_is_drawn(size_hw, box):
    height, width = size_hw
    scaled = [box[0] * width, box[1] * height, box[2] * width, box[3] * height]
    drawn = draw_detections(grey(height, width), detections([scaled], ["a name 红细胞"]))
    assert drawn.shape == (height, width, 3)
    assert (drawn != 128).any()


@pytest.mark.parametrize("box", [[700, 10, 800, 90], [-90, 10, -5, 90], [np.nan, 0, 5, 5], [50, 50, 50, 60]])
def test_what_is_outside_or_empty_is_left_out(box):
    assert (draw_detections(grey(480, 640), detections([box])) == 128).all()


def test_a_small_box_lies_over_a_large_one_whatever_the_order():
    boxes, ids = [[300, 300, 320, 320], [100, 100, 310, 500]], [0, 1]
    drawn = draw_boxes(grey(600, 600), np.array(boxes, float), np.array(ids), ["", ""])
    # The large box's right edge crosses the small box's left upper part; the small one's top edge stays whole.
    assert (drawn[300, 302:318] == class_colour(0)).all()


def test_labels_stay_inside_the_image_and_off_each_other():
    rng = np.random.default_rng(3)
    corners = rng.uniform(0, 400, (15, 2))
    frames = np.hstack([corners, corners + rng.uniform(20, 80, (15, 2))]).astype(np.int64)
    sizes = [(20, 90)] * 15
    places = _place_labels(frames, sizes, (480, 480))
    boxes = [(x, y, x + 90, y + 20) for x, y in places]
    assert all(x >= 0 and y >= 0 and right <= 480 and bottom <= 480 for x, y, right, bottom in boxes)
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])


def test_labels_stand_where_they_would_if_they_were_placed_one_by_one(monkeypatch):
    rng = np.random.default_rng(4)
    corners = rng.uniform(0, 350, (40, 2))
    frames = np.hstack([corners, corners + rng.uniform(5, 130, (40, 2))]).astype(np.int64)
    sizes = [(15, int(width)) for width in rng.integers(20, 100, 40)]
    places = _place_labels(frames, sizes, (480, 480))
    monkeypatch.setattr("utils.draw.PLACED_AT_ONCE", 1)
    assert _place_labels(frames, sizes, (480, 480)) == places


def test_a_label_stands_over_its_box_or_under_it_at_the_upper_edge():
    over, under = _place_labels(np.array([[50, 100, 200, 200], [250, 0, 400, 90]]), [(20, 60)] * 2, (480, 640))
    assert over == (50, 80)
    assert under == (250, 90)


def test_sizes_follow_the_image():
    small, large = Style.fitting((480, 640)), Style.fitting((4800, 6400))
    assert large.font == pytest.approx(10 * small.font, abs=5)
    assert large.line > 5 * small.line
    assert Style.fitting((480, 640), boxes=100).font < small.font
    assert Style.fitting((20, 20)).font == 0


def test_names_in_many_scripts_have_glyphs():
    for text in ("Fußgänger", "собака", "σκύλος", "كرة", "כלב", "红细胞", "漢字", "かな", "한국어"):
        assert fonts.missing_characters(text) == "", text
        assert fonts.text_mask(text, 20).max() > 200


def test_different_letters_give_different_masks():
    masks = {fonts.text_mask(text, 24).tobytes() for text in ("红", "细", "胞", "한", "あ", "a", "ж", "ע", "?")}
    assert len(masks) == 9


def test_all_lines_of_a_font_size_are_equally_high():
    assert len({fonts.text_mask(text, 17).shape[0] for text in ("", "x", "Äg", "红细胞", "كرة", "\U0001f408")}) == 1


def test_letters_that_no_font_has_are_named_and_the_label_shows_the_class_number(monkeypatch):
    monkeypatch.setattr(fonts, "_system_faces", lambda: ())
    fonts._face_for.cache_clear()
    try:
        assert fonts.missing_characters("a\u1202\u1203\u1202") == "\u1202\u1203"
        assert drawable_name("\u1202\u1203", 7) == "#7"
        assert drawable_name("cat \u1202", 7) == "cat \u1202"
        assert "\u1202" in fonts.missing_note(["cat", "\u1202"])
        assert fonts.missing_note(["cat", "红"]) == ""
        assert fonts.text_mask("\u1202", 20).tobytes() == fonts.text_mask(fonts.MISSING, 20).tobytes()
    finally:
        fonts._face_for.cache_clear()


def test_fonts_of_the_system_are_searched_for_missing_letters(monkeypatch, tmp_path):
    class Bare:
        def has(self, character):
            return False

    (tmp_path / "broken.ttf").write_bytes(b"no font")
    shutil.copy(str(fonts._default_path()), tmp_path / "sub.ttf")
    monkeypatch.setattr(fonts, "_font_folders", lambda: (Path(tmp_path),))
    monkeypatch.setattr(fonts, "_default_face", Bare)
    monkeypatch.setattr(fonts, "_opencv_face", Bare)
    fonts._face_for.cache_clear()
    fonts._system_faces.cache_clear()
    try:
        assert fonts.missing_characters("ж") == ""
    finally:
        fonts._face_for.cache_clear()
        fonts._system_faces.cache_clear()


@pytest.mark.parametrize("width", [20, 60, 200])
def test_a_long_name_is_cut_to_fit(width):
    assert fonts.shortened_mask("a very long class name indeed", 15, width).shape[1] <= width


def test_a_name_that_fits_is_not_cut():
    assert fonts.shortened_mask("dog", 15, 500) is fonts.text_mask("dog", 15)


@pytest.mark.parametrize("name", ["", "two\nlines", "\u200d", "tab\tbed", "e\u0301", "x" * 500])
def test_odd_names_are_drawn(name):
    assert draw_detections(grey(100, 200), detections([[10, 30, 90, 90]], [name])).shape == (100, 200, 3)


def test_heat_shows_where_it_is():
    heat = np.zeros((40, 60), np.float32)
    heat[5:10, 50:55] = 1
    shown = overlay_heat(np.full((40, 60, 3), 100, np.uint8), heat).astype(int)
    assert shown[7, 52, 0] > 150
    assert (shown[30, 10] == 75).all()
    changed = (shown != 75).any(axis=2)
    assert (changed == (heat > 0)).all()


def test_contact_sheet_holds_every_picture():
    images = [np.full((20 + 10 * i, 40, 3), 10 * i, np.uint8) for i in range(5)]
    sheet = contact_sheet(images, [f"picture {i}" for i in range(5)], columns=2, cell_px=100)
    assert sheet.dtype == np.uint8
    assert 200 < sheet.shape[1] < 240
    for i in range(5):
        assert ((sheet == 10 * i).all(axis=2)).sum() > 1000


@pytest.mark.parametrize("count", [0, 1, 3])
def test_contact_sheet_of_few(count):
    assert contact_sheet([np.zeros((1, 1, 3), np.uint8)] * count, columns=4, cell_px=64).ndim == 3


def test_contact_sheet_wants_a_title_for_each():
    with pytest.raises(ValueError, match="2 titles for 1"):
        contact_sheet([grey(5, 5)], ["a", "b"])
