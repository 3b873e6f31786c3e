"""One VOC XML file: every row of the XML group of bad input."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import pytest

from tests.voc_trees import annotation_xml, object_xml
from utils.errors import DataError
from utils.problems import Problems
from utils.safe_xml import MAX_XML_BYTES
from utils.voc import (
    fit_to_image,
    parse_annotation,
)

CAR = object_xml("car", 1, 2, 30, 40)


def parsed(tmp_path: Path, text: str | bytes, name: str = "000001.xml"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    problems = Problems()
    return parse_annotation(path, problems), problems


def refused(tmp_path: Path, text: str | bytes, match: str) -> None:
    """Both ways to parse must see it, and name the file."""
    path = tmp_path / "000001.xml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=match) as caught:
        parse_annotation(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_reads_names_boxes_difficult_and_size(tmp_path):
    objects = [CAR, object_xml("big dog", "1.5", "2", "30.25", "40", f"<difficult>{'1' * 5000}</difficult>")]
    annotation, problems = parsed(tmp_path, annotation_xml(objects), "a.b.xml")
    assert annotation.image_id == "a.b"
    assert annotation.size_hw == (48, 64)
    assert [(item.name, item.box_xyxy, item.difficult) for item in annotation.objects] == [
        ("car", (1, 2, 30, 40), False),
        ("big dog", (1.5, 2, 30.25, 40), True),
    ]
    assert not problems.errors
    assert not problems.warnings


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "empty"),
        ("  \n", "empty"),
        ("\ufeff", "not well-formed"),
        (annotation_xml([CAR])[:-20], "not well-formed"),
        ("path,x,y\n1,2,3", "not well-formed"),
        ("\x89PNG\r\n\x1a\n\0\0", "not well-formed|encoding"),
        ("<annotations><object/></annotations>", "root <annotations>"),
        ('<a:annotation xmlns:a="urn:x"/>', "root"),
        ("<!DOCTYPE annotation><annotation/>", "DOCTYPE"),
        ('<!DOCTYPE annotation SYSTEM "http://127.0.0.1:9/x.dtd"><annotation/>', "DOCTYPE"),
        (
            '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><folder>&x;</folder></annotation>',
            "DOCTYPE",
        ),
        ("<annotation><folder>&undefined;</folder></annotation>", "not well-formed"),
        ("<annotation>" + " " * MAX_XML_BYTES + "</annotation>", "over 1 MB"),
    ],
)
def test_refuses_what_is_no_annotation(tmp_path, text, match):
    refused(tmp_path, text, match)


def test_refuses_an_entity_bomb_at_once_in_any_encoding(tmp_path):
    levels = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(9))
    bomb = f'<!DOCTYPE a [<!ENTITY e0 "ha">{levels}]><annotation><folder>&e9;</folder></annotation>'
    for codec in ("utf-8", "utf-16", "utf-16-le", "utf-16-be"):
        refused(tmp_path, bomb.encode(codec), "DOCTYPE")


@pytest.mark.parametrize(
    ("declared", "codec"),
    [
        ("GBK", "gbk"),
        ("gb2312", "gb2312"),
        ("GB2312", "gbk"),
        ("gb18030", "gb18030"),
        ("UTF-8", "utf-8"),
        ("UTF-8", "utf-8-sig"),
        ("UTF-16", "utf-16"),
        ("utf-16", "utf-16-le"),
        ("utf-16", "utf-16-be"),
        (None, "utf-8"),
        (None, "utf-8-sig"),
        (None, "utf-16"),
        (None, "utf-16-be"),
    ],
)
def test_decodes_what_people_save(tmp_path, declared, codec):
    name = "汽车" if codec == "gb2312" else "汽車"
    head = f'<?xml version="1.0" encoding="{declared}"?>\n' if declared else ""
    annotation, problems = parsed(tmp_path, (head + annotation_xml([object_xml(name, 1, 2, 3, 4)])).encode(codec))
    assert [item.name for item in annotation.objects] == [name]
    assert not problems.warnings


def test_guesses_gbk_without_a_declaration_and_says_so(tmp_path):
    annotation, problems = parsed(tmp_path, annotation_xml([object_xml("汽车", 1, 2, 3, 4)]).encode("gbk"))
    assert annotation.objects[0].name == "汽车"
    assert problems.warnings["encoding guessed"] == 1


@pytest.mark.parametrize(
    ("declared", "data"),
    [
        ("utf-8", "汽车".encode("gbk")),
        ("UTF-8", b"\xff\xfe\xfa"),
        ("utf-16", b"plain"),
        ("ascii", "汽车".encode()),
        ("gbk", b"\xff\xff"),
        *(("gbk", name.encode()) for name in ("汽车", "猫狗", "行人", "缺陷")),
        ("klingon", b"plain"),
    ],
)
def test_refuses_bytes_that_contradict_the_declared_encoding(tmp_path, declared, data):
    head = f'<?xml version="1.0" encoding="{declared}"?><annotation><folder>'.encode()
    refused(tmp_path, head + data + b"</folder></annotation>", "(?i)encoding")


@pytest.mark.parametrize(("declared", "codec"), [("utf-8", "utf-16"), ("gbk", "utf-8-sig")])
def test_refuses_a_byte_order_mark_that_contradicts_the_declaration(tmp_path, declared, codec):
    refused(tmp_path, f'<?xml version="1.0" encoding="{declared}"?><annotation/>'.encode(codec), "contradict")


@pytest.mark.parametrize(
    ("broken", "match"),
    [
        ("<object><bndbox><xmin>1</xmin></bndbox></object>", "object 2: name: missing"),
        ("<object></object>", "object 2: name: missing"),
        (object_xml("  ", 1, 2, 3, 4), "name: missing"),
        (object_xml("two\nlines", 1, 2, 3, 4), "line break"),
        ("<object><name>car</name></object>", "bndbox: missing"),
        (object_xml("car", 1, 2, 3, ""), "ymax: missing"),
        (
            "<object><name>car</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax></bndbox></object>",
            "ymax: missing",
        ),
        (object_xml("car", "NaN", 2, 3, 4), "xmin: 'NaN'"),
        (object_xml("car", 1, "inf", 3, 4), "ymin: 'inf'"),
        (object_xml("car", 1, 2, "1e999", 4), "xmax: '1e999'"),
        (object_xml("car", 1, 2, "1_000", 4), "xmax: '1_000'"),
        (object_xml("car", 1, 2, "３０", 4), "xmax: '３０'"),
        (object_xml("car", 1, 2, "wide", 4), "xmax: 'wide'"),
        (object_xml("car", 5, 2, 5, 4), "xmin 5, xmax 5: the box has no area"),
        (object_xml("car", 5, 9, 7, 4), "ymin 9, ymax 4: the two are swapped"),
        (object_xml("car", 1, 2, 3, 4, "<difficult>yes</difficult>"), "difficult: 'yes'"),
        (object_xml("car", 1, 2, 3, 4, "<difficult>0.5</difficult>"), "difficult: '0.5'"),
        (object_xml("car", 1, 2, 3, 4, "<difficult>1_0</difficult>"), "difficult: '1_0'"),
    ],
)
def test_refuses_a_broken_object_and_collects_the_rest(tmp_path, broken, match):
    refused(tmp_path, annotation_xml([CAR, broken, CAR]), match)
    annotation, problems = parsed(tmp_path, annotation_xml([CAR, broken, CAR]))
    assert len(annotation.objects) == 2
    assert len(problems.errors) == 1
    assert "object 2" in problems.errors[0]


def test_a_name_that_disagrees_only_warns(tmp_path):
    for filename, count in (("000001.jpg", 0), ("000001", 0), ("", 0), ("../../etc/passwd", 1), ("/etc/000001.jpg", 1)):
        extra = f"<filename>{filename}</filename><path>C:\\photos\\x.jpg</path>"
        annotation, problems = parsed(tmp_path, annotation_xml([CAR], extra=extra))
        assert annotation.image_id == "000001"
        assert problems.warnings["filename differs from the XML's name"] == count


def test_spaces_around_a_name_are_stripped_with_a_warning(tmp_path):
    annotation, problems = parsed(tmp_path, annotation_xml([object_xml(" traffic light ", 1, 2, 3, 4)]))
    assert annotation.objects[0].name == "traffic light"
    assert problems.warnings["spaces around a name"] == 1


def test_the_same_box_twice_warns_and_stays(tmp_path):
    annotation, problems = parsed(tmp_path, annotation_xml([CAR, CAR, object_xml("bus", 1, 2, 30, 40)]))
    assert len(annotation.objects) == 3
    assert problems.warnings["same box twice"] == 1


def test_parts_with_their_own_boxes_are_ignored(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    before = CAR.replace("<bndbox>", part + "<bndbox>", 1)
    after = CAR.replace("</object>", part + "</object>")
    annotation, problems = parsed(tmp_path, annotation_xml([before, after.replace("car", "bus")]))
    assert [item.box_xyxy for item in annotation.objects] == [(1, 2, 30, 40)] * 2
    assert not problems.errors
    only_part = f"<object><name>man</name>{part}</object>"
    refused(tmp_path, annotation_xml([only_part]), "bndbox: missing")


def test_objects_that_lie_deeper_are_no_negative(tmp_path):
    refused(
        tmp_path,
        annotation_xml([f"<objects>{CAR}{CAR}</objects>"]),
        "objects: holds an <object>, whose place is <annotation>: move it there",
    )


def test_hundreds_of_boxes_are_all_read(tmp_path):
    objects = [object_xml("cell", i, 0, i + 1, 5) for i in range(700)]
    annotation, _ = parsed(tmp_path, annotation_xml(objects))
    assert len(annotation.objects) == 700


def test_no_objects_is_a_negative(tmp_path):
    annotation, problems = parsed(tmp_path, annotation_xml())
    assert annotation.objects == ()
    assert not problems.errors


@pytest.mark.parametrize(
    "size_wh", [None, (0, 48), (64, 0), (-64, 48), ("", ""), ("wide", 48), ("nan", 48), (63.5, 48)]
)
def test_a_missing_size_comes_from_the_image(tmp_path, size_wh):
    annotation, problems = parsed(tmp_path, annotation_xml([CAR], size_wh))
    assert annotation.size_hw is None
    fitted = fit_to_image(annotation, (48, 64), problems)
    assert fitted.size_hw == (48, 64)
    assert problems.warnings["size missing"] == 1
    assert not problems.errors


def test_a_size_that_differs_names_both(tmp_path):
    annotation, _ = parsed(tmp_path, annotation_xml([CAR], (64, 48)))
    with pytest.raises(DataError, match=r"64x48: the image is 100x80"):
        fit_to_image(annotation, (80, 100))
    with pytest.raises(DataError, match=r"64x48: the image is 48x64: give --ignore-exif"):
        fit_to_image(annotation, (64, 48))


def test_a_pixel_outside_is_clipped_and_more_is_an_error(tmp_path):
    boxes = [(-1, 0, 65, 48.5), (0, 0, 64, 48), (-1.01, 0, 5, 5), (0, 0, 5, 49.5), (64, 0, 65, 5)]
    objects = [object_xml("car", *box) for box in boxes]
    annotation, problems = parsed(tmp_path, annotation_xml(objects))
    fitted = fit_to_image(annotation, (48, 64), problems)
    assert [item.box_xyxy for item in fitted.objects] == [(0, 0, 64, 48), (0, 0, 64, 48)]
    assert problems.warnings["box clipped to the image"] == 1
    assert len(problems.errors) == 3
    with pytest.raises(DataError, match="outside the image of 64x48"):
        fit_to_image(annotation, (48, 64))


def test_never_hangs_on_or_follows_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.xml")
    (tmp_path / "dir.xml").mkdir()
    (tmp_path / "real.xml").write_text(annotation_xml([CAR]))
    (tmp_path / "link.xml").symlink_to(tmp_path / "real.xml")
    for name, match in (("pipe", "pipe"), ("dir", "directory"), ("link", "link"), ("absent", "no such")):
        with pytest.raises(DataError, match=match):
            parse_annotation(tmp_path / f"{name}.xml")


def test_a_typical_file_as_a_tool_writes_it(tmp_path):
    text = textwrap.dedent("""\
        <?xml version="1.0" ?>
        <!-- made by a tool -->
        <annotation verified="yes">
            <folder>图片</folder>
            <filename>000001.jpg</filename>
            <size><width> 64 </width><height>48.0</height><depth/></size>
            <object><name>car</name><truncated>Unspecified</truncated><difficult/>
                <bndbox><xmax>30.5</xmax><xmin>1</xmin><ymax>40</ymax><ymin> 2 </ymin></bndbox>
            </object>
        </annotation>
    """)
    annotation, problems = parsed(tmp_path, text)
    assert annotation.size_hw == (48, 64)
    assert annotation.objects[0].box_xyxy == (1, 2, 30.5, 40)
    assert annotation.objects[0].difficult is False
    assert not problems.errors
    assert not problems.warnings
