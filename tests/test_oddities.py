"""Real annotation files that surprise parsers: what each holds, and what it gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from utils.annotations import fit_to_image, parse_annotation
from utils.errors import DataError
from utils.problems import Problems
from utils.types import Annotation

READ = {
    # name: (size_hw, class of the first object, its box, number of objects)
    # grey camera (depth 1), Windows path with Chinese folders
    "brush_depth1.xml": ((512, 640), "nick", (238, 198, 267, 237), 9),
    # exported without any object: a negative
    "bucketsb_noobj.xml": ((720, 1280), None, None, 0),
    # size without depth, a space in the class name
    "cloudannot_nodepth_space_in_class.xml": ((563, 1000), "Tie Fighter", (157, 165, 166, 176), 2),
    # box down to the last row of pixels
    "damage2d_a.xml": ((256, 256), "crack", (1, 170, 255, 256), 1),
    # no size at all, a long comment, no object
    "datumaro_nosize_at.xml": (None, None, None, 0),
    # CRLF, float corners, empty depth, attributes that hold further <name> elements
    "fod_crlf_attributes.xml": ((300, 300), "Battery", (138.2219, 104.2833, 151.4406, 148.3472), 1),
    # one line, no object
    "jetson_noobj.xml": ((720, 1280), None, None, 0),
    # filename "Untitled.jpg" and a Windows folder: the XML's own name decides
    "pprp_stem.xml": ((2000, 300), "ship", (163, 538, 202, 568), 2),
    # filename without a suffix; corners in the order xmin, xmax, ymin, ymax
    "roboflow_noext_1be.xml": ((512, 765), "black-king", (554, 101, 625, 213), 8),
    # objects before size, ymax before xmax, <owner><name>; one corner at -1
    "rsod_negative.xml": ((659, 1116), "aircraft", (462, 229, 525, 298), 8),
    # non-ASCII path, filename with another suffix, class names with spaces
    "uwtb_nonascii_pngname.xml": ((260, 346), "red belly glassfish", (38, 114, 91, 139), 5),
    # a photo with EXIF orientation 6: the XML has the size as it is shown
    "wenbo_exif6_MNT_049.xml": ((4128, 3096), "tvmonitor", (1066, 1102, 2102, 2016), 1),
}
REFUSED = {
    # CVAT's own formats
    "cvat_export_project.xml": "root <annotations>",
    "cvat_for_video.xml": "root <annotations>",
    # LabelMe: the right root, polygons instead of boxes
    "labelme_mit_online.xml": r"object 1 \(window\): bndbox: missing",
    # an <object> with nothing in it between good ones
    "sixray_empty_object_P04029.xml": "object 5: name: missing",
}


def parsed(path: Path) -> tuple[Annotation, Problems]:
    problems = Problems()
    return parse_annotation(path, problems), problems


def test_every_file_is_accounted_for(oddities_dir):
    assert {path.name for path in oddities_dir.iterdir()} == set(READ) | set(REFUSED)


@pytest.mark.parametrize("name", sorted(READ))
def test_reads(oddities_dir, name):
    annotation, problems = parsed(oddities_dir / name)
    size_hw, first_name, first_box, count = READ[name]
    assert annotation.size_hw == size_hw
    assert len(annotation.objects) == count
    if first_name:
        assert annotation.objects[0].name == first_name
        assert annotation.objects[0].box_xyxy == first_box
        assert not annotation.objects[0].difficult
    assert not problems.errors
    assert problems.warnings["filename differs from the XML's name"] == 1
    assert annotation.image_id == name[:-4]


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refuses(oddities_dir, name):
    with pytest.raises(DataError, match=REFUSED[name]):
        parse_annotation(oddities_dir / name)


def test_a_corner_at_minus_one_is_clipped(oddities_dir):
    annotation, problems = parsed(oddities_dir / "rsod_negative.xml")
    assert annotation.objects[7].box_xyxy == (904, -1, 953, 26)
    fitted = fit_to_image(annotation, (659, 1116), problems)
    assert fitted.objects[7].box_xyxy == (904, 0, 953, 26)
    assert problems.warnings["box clipped to the image"] == 1
    assert not problems.errors


def test_an_empty_object_costs_only_itself_when_collecting(oddities_dir):
    annotation, problems = parsed(oddities_dir / "sixray_empty_object_P04029.xml")
    assert [item.name for item in annotation.objects] == ["Pliers", "Pliers", "Wrench", "Wrench", "Pliers"]
    assert len(problems.errors) == 1


def test_the_photo_with_exif_fits_as_it_is_shown_and_not_as_it_is_stored(oddities_dir):
    annotation, _ = parsed(oddities_dir / "wenbo_exif6_MNT_049.xml")
    assert fit_to_image(annotation, (4128, 3096)).size_hw == (4128, 3096)
    with pytest.raises(DataError, match="3096x4128: the image is 4128x3096"):
        fit_to_image(annotation, (3096, 4128))
