"""Reading images: every row of the image group of bad input, and one EXIF convention everywhere."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.specs import detector_spec
from utils.errors import DataError
from utils.images import IMAGE_SUFFIXES, decode_image, pixels_of, probe, read_for_detector, read_image


@pytest.fixture
def photo() -> Image.Image:
    """Smooth, asymmetric in every direction, 40 x 24."""
    y, x = np.mgrid[0:24, 0:40]
    return Image.fromarray(np.stack([x * 6, y * 10, 255 - x * 3 - y * 3], axis=2).astype(np.uint8))


def saved(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


def refused(path: Path, match: str) -> None:
    """Reading and probing must both see it."""
    for look in (read_image, probe):
        with pytest.raises(DataError, match=match) as caught:
            look(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


def jpeg_bytes(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def with_frame_size(data: bytes, width: int, height: int) -> bytes:
    """The JPEG with another size in its header."""
    frame = data.index(b"\xff\xc0")
    return data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 :]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tif", ".gif"])
def test_every_format_gives_the_same_picture(tmp_path, photo, suffix):
    path = saved(photo, tmp_path / f"a{suffix}", **({"lossless": True} if suffix == ".webp" else {}))
    warnings: list[str] = []
    image = read_image(path, warn=warnings.append)
    assert image.shape == (24, 40, 3)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable
    tolerance = {".jpg": 24, ".gif": 40}.get(suffix, 0)
    assert np.abs(image.astype(int) - np.asarray(photo)).max() <= tolerance
    assert probe(path, warn=warnings.append).size_hw == (24, 40)
    assert warnings == []
    assert suffix in IMAGE_SUFFIXES


def test_a_plain_jpeg_is_what_libjpeg_says(tmp_path, photo):
    for options in ({}, {"progressive": True}, {"subsampling": 0}, {"keep_rgb": True}):
        path = tmp_path / "a.jpg"
        path.write_bytes(jpeg_bytes(photo, **options))
        np.testing.assert_allclose(read_image(path), np.asarray(Image.open(path)), atol=4)


def marked(photo: Image.Image, path: Path, orientation: int) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(photo, path, exif=exif, **({"lossless": True} if path.suffix == ".webp" else {}))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_exif_is_applied_exactly_once(tmp_path, photo, suffix, orientation):
    path = marked(photo, tmp_path / f"a{suffix}", orientation)
    tolerance = 24 if suffix == ".jpg" else 0
    # Pillow turns a TIFF by itself, so the oracle starts from the stored pixels.
    probed = Image.new("RGB", photo.size)
    probed.paste(photo)
    probed.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(probed))
    image = read_image(path)
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).max() <= tolerance
    assert probe(path).size_hw == upright.shape[:2]
    assert probe(path).orientation == orientation
    stored = read_image(path, ignore_exif=True)
    assert stored.shape == (24, 40, 3)
    assert np.abs(stored.astype(int) - np.asarray(photo)).max() <= tolerance
    assert probe(path, ignore_exif=True).size_hw == (24, 40)
    assert image.flags.c_contiguous


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_an_open_image_is_turned_as_its_file(tmp_path, photo, suffix, orientation):
    path = marked(photo, tmp_path / f"a{suffix}", orientation)
    for ignore_exif in (False, True):
        with Image.open(path) as image:
            found = pixels_of(image, ignore_exif)
        np.testing.assert_allclose(found, read_image(path, ignore_exif), atol=4)


@pytest.mark.parametrize(("suffix", "mode"), [(".jpg", "RGB"), (".jpg", "CMYK"), (".webp", "RGB"), (".tif", "RGB")])
def test_xmp_turns_nothing(tmp_path, photo, suffix, mode):
    """Pillow would ask it where EXIF says nothing; our own reader of JPEG, OpenCV and browsers do not."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    path = tmp_path / f"a{suffix}"
    photo.convert(mode).save(path, **({"tiffinfo": {700: xmp}} if suffix == ".tif" else {"xmp": xmp}))
    for ignore_exif in (False, True):
        assert probe(path, ignore_exif).size_hw == read_image(path, ignore_exif).shape[:2] == (24, 40)
        with Image.open(path) as image:
            assert b"Orientation" in image.info["xmp"]
            assert pixels_of(image, ignore_exif).shape == (24, 40, 3)


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_in_both_byte_orders_and_broken(tmp_path, photo, order):
    def segment(body: bytes) -> bytes:
        return jpeg_bytes(photo)[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 8) + b"Exif\0\0" + body

    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    right = mark + struct.pack(order + "IH", 8, 1) + struct.pack(order + "HHIHxx", 0x0112, 3, 1, 6)
    rest = jpeg_bytes(photo)[2:]
    long = mark + struct.pack(order + "IH", 8, 1) + struct.pack(order + "HHII", 0x0112, 4, 1, 6)
    beyond = mark + struct.pack(order + "I", 10**6)
    cases = ((right, (40, 24)), (long, (40, 24)), (right[:12], (24, 40)), (beyond, (24, 40)))
    for body, size_hw in cases:
        data = segment(body) + rest
        assert decode_image(data, "a.jpg").shape[:2] == size_hw
        (tmp_path / "a.jpg").write_bytes(data)
        assert probe(tmp_path / "a.jpg").size_hw == size_hw


def test_a_large_thumbnail_before_the_picture_does_not_matter(tmp_path, photo):
    exif = Image.Exif()
    exif[0x0112] = 3
    body = exif.tobytes() + jpeg_bytes(photo) + os.urandom(30_000).replace(b"\xff", b"\0")
    plain = jpeg_bytes(photo)
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + plain[2:]
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    assert probe(path).orientation == 3
    np.testing.assert_array_equal(read_image(path), decode_image(plain, "a.jpg")[::-1, ::-1])
    # The end marker of the thumbnail must not stand in for the picture's own.
    path.write_bytes(data[:-40])
    refused(path, "truncated")


def test_cmyk_jpeg(tmp_path, photo):
    path = saved(photo.convert("CMYK"), tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(read_image(path), np.asarray(photo), atol=30)
    assert probe(path).size_hw == (24, 40)


def test_grey_one_bit_and_palette(tmp_path, photo):
    grey = photo.convert("L")
    for name in ("a.png", "a.jpg", "a.tif"):
        image = read_image(saved(grey, tmp_path / name))
        assert np.abs(image.astype(int) - np.asarray(grey)[:, :, None]).max() <= (8 if name == "a.jpg" else 0)
    bits = photo.convert("1")
    assert set(np.unique(read_image(saved(bits, tmp_path / "b.png")))) == {0, 255}
    palette = photo.quantize(16)
    np.testing.assert_array_equal(read_image(saved(palette, tmp_path / "c.png")), np.asarray(palette.convert("RGB")))


def test_alpha_lies_over_grey_128(tmp_path):
    pixels = np.array([[[255, 0, 10, 255], [255, 0, 10, 0], [255, 0, 10, 51]]], np.uint8)
    # alpha 51/255 = 0.2: 0.2 * 255 + 0.8 * 128 = 153.4, 0.8 * 128 = 102.4, 0.2 * 10 + 102.4 = 104.4
    expected = [[255, 0, 10], [128, 128, 128], [153, 102, 104]]
    assert read_image(saved(Image.fromarray(pixels), tmp_path / "a.png"))[0].tolist() == expected
    grey_alpha = Image.fromarray(pixels).convert("LA")
    assert read_image(saved(grey_alpha, tmp_path / "b.png"))[0, 1].tolist() == [128] * 3
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([255, 0, 0, 0, 255, 0])
    assert read_image(saved(palette, tmp_path / "c.png", transparency=0))[0].tolist() == [[128] * 3, [0, 255, 0]]
    rgb = Image.fromarray(pixels[..., :3])
    assert read_image(saved(rgb, tmp_path / "d.png", transparency=(255, 0, 10)))[0, 0].tolist() == [128] * 3


def test_sixteen_bits_are_scaled(tmp_path):
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    for name in ("a.png", "a.tif"):
        image = read_image(saved(Image.fromarray(values), tmp_path / name))
        assert image[0, :, 0].tolist() == [0, 1, 128, 255]
    colour = np.stack([values, values[:, ::-1], values], axis=2)
    cv2.imwrite(str(tmp_path / "b.png"), colour)
    cv2.imwrite(str(tmp_path / "b.tif"), colour)
    for name in ("b.png", "b.tif"):
        image = read_image(tmp_path / name)
        assert image[0].tolist() == [[0, 255, 0], [1, 128, 1], [128, 1, 128], [255, 0, 255]]


def test_animations_give_their_first_frame_and_a_warning(tmp_path):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    for name in ("a.gif", "a.png", "a.webp", "a.tif"):
        path = saved(frames[0], tmp_path / name, save_all=True, append_images=frames[1:])
        warnings: list[str] = []
        image = read_image(path, warn=warnings.append)
        np.testing.assert_allclose(image, np.broadcast_to([255, 0, 0], (6, 8, 3)), atol=3)
        assert len(warnings) == 1
        assert "3 frames" in warnings[0]


def test_a_wrong_extension_warns(tmp_path, photo):
    path = saved(photo, tmp_path / "a.jpg", format="PNG")
    warnings: list[str] = []
    np.testing.assert_array_equal(read_image(path, warn=warnings.append), np.asarray(photo))
    assert probe(path, warn=warnings.append).format == "PNG"
    assert len(warnings) == 2
    assert "PNG" in warnings[0]


def test_one_pixel(tmp_path):
    for name in ("a.png", "a.jpg", "a.bmp"):
        path = saved(Image.new("RGB", (1, 1), (128, 128, 128)), tmp_path / name)
        np.testing.assert_allclose(read_image(path), np.full((1, 1, 3), 128), atol=2)
        assert probe(path).size_hw == (1, 1)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_a_truncated_jpeg_is_refused_wherever_it_ends(tmp_path, photo, options):
    data = jpeg_bytes(photo.resize((320, 240)), **options)
    path = tmp_path / "a.jpg"
    path.write_bytes(data + b"appended by some program" * 10)
    assert read_image(path).shape == (240, 320, 3)
    assert probe(path).size_hw == (240, 320)
    for kept in (4, 30, len(data) // 3, len(data) // 2, len(data) - 100, len(data) - 2):
        path.write_bytes(data[:kept])
        refused(path, "truncated")
        path.write_bytes(data[:kept] + bytes(len(data) - kept))
        refused(path, "truncated")


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp", ".tif", ".gif"])
def test_a_truncated_file_of_another_format_is_refused(tmp_path, suffix):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8))
    path = saved(noise, tmp_path / f"a{suffix}")
    data = path.read_bytes()
    # The end of a PNG is a chunk of twelve bytes.
    for kept in (len(data) // 20, len(data) // 2, len(data) * 9 // 10, *([len(data) - 12] if suffix == ".png" else [])):
        path.write_bytes(data[:kept])
        with pytest.raises(DataError, match="truncated"):
            read_image(path)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
        (b"\n <html>", "HTML"),
        (b"just some words", "text"),
        ("nur Wörter".encode(), "text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC is not supported, convert to JPEG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x1cftypisom\0\0\0\0", "video"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "EPS"),
        (b"\xc5\xd0\xd3\xc6\0\0", "EPS"),
        (b"%PDF-1.7", "PDF"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"8BPS\0\1", "Photoshop"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (bytes(range(32)), "no image"),
        (b"\xff\xd8\xff", "truncated"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"BM and more text", "BMP"),
    ],
)
def test_what_is_no_image_is_named(tmp_path, content, match):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    refused(path, match)


def test_a_float_tiff_is_refused(tmp_path):
    refused(saved(Image.fromarray(np.ones((4, 4), np.float32)), tmp_path / "a.tif"), "float")
    refused(saved(Image.fromarray(np.ones((4, 4), np.int32)), tmp_path / "b.tif"), "32-bit")
    cv2.imwrite(str(tmp_path / "colour.tif"), np.ones((4, 4, 3), np.float32))
    refused(tmp_path / "colour.tif", "or holds pixels of a kind that is not read, such as floats: convert it")


def test_what_cannot_be_read_is_said_in_the_same_words_each_time(tmp_path):
    for name, start in (("a.png", b"\x89PNG\r\n\x1a\n"), ("a.tif", b"II*\0"), ("a.webp", b"RIFF1234WEBP")):
        (tmp_path / name).write_bytes(start + bytes(200) + b"IEND")
        said = []
        for look in (read_image, probe):
            with pytest.raises(DataError, match="truncated or damaged") as caught:
                look(tmp_path / name)
            said.append(str(caught.value))
        assert said[0] == said[1]
        assert " at 0x" not in said[0]


def test_an_open_image_without_pixels_is_refused():
    with pytest.raises(DataError, match="0x0 px: has no pixels"):
        pixels_of(Image.new("RGB", (0, 0)))


def test_over_100_megapixels_is_refused_from_the_header(tmp_path, photo):
    path = tmp_path / "a.jpg"
    path.write_bytes(with_frame_size(jpeg_bytes(photo), 10_001, 10_000))
    refused(path, r"10001x10000 px: over 100 megapixels")
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path = tmp_path / "b.png"
    path.write_bytes(data + b"\0\0\0\0IEND\xaeB`\x82")
    refused(path, "over 100 megapixels")


def test_a_side_of_zero_is_refused(tmp_path, photo):
    path = tmp_path / "a.jpg"
    path.write_bytes(with_frame_size(jpeg_bytes(photo), 40, 0))
    refused(path, "40x0 px")


def test_twelve_bit_jpeg_is_refused(tmp_path, photo):
    data = jpeg_bytes(photo)
    frame = data.index(b"\xff\xc0")
    path = tmp_path / "a.jpg"
    path.write_bytes(data[: frame + 4] + b"\x0c" + data[frame + 5 :])
    refused(path, "12 bits")


def test_pipes_devices_and_directories_never_hang(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    refused(tmp_path / "a.jpg", "pipe")
    (tmp_path / "b.jpg").mkdir()
    refused(tmp_path / "b.jpg", "directory")
    refused(Path("/dev/zero"), "device")
    refused(tmp_path / "absent.jpg", "no such image")
    with pytest.raises(DataError, match="cannot be read"):
        read_image("a\0b.jpg")


def test_an_unreadable_file_is_named(tmp_path, photo, monkeypatch):
    path = saved(photo, tmp_path / "a.jpg")

    def denied(name, mode):
        # root may read everything, so the refusal is played
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)

    monkeypatch.setattr("utils.inputs.FileIO", denied)
    refused(path, "cannot be read: Permission denied")


def test_a_photo_too_thin_for_a_detector_is_named(tmp_path):
    spec = detector_spec(input_size=64)
    path = saved(Image.new("RGB", (300, 1)), tmp_path / "thin.png")
    with pytest.raises(DataError, match=r"thin\.png: 300x1 px: too thin"):
        read_for_detector(path, spec)
    assert read_for_detector(path, dataclasses.replace(spec, resize="stretch")).shape == (1, 300, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(Image.new("RGB", (30, 20)), tmp_path / "a.png", exif=exif)
    assert read_for_detector(turned, spec).shape == (30, 20, 3)
    assert read_for_detector(turned, dataclasses.replace(spec, ignore_exif=True)).shape == (20, 30, 3)
    assert read_for_detector(turned, spec, ignore_exif=True).shape == (20, 30, 3)


def test_names_of_any_kind(tmp_path, photo):
    names = ["with space.jpg", "照片🙂.jpg", "a.b.c.jpg", os.fsdecode(b"caf\xe9.jpg"), "-x.jpg", "[1].jpg"]
    for name in names:
        assert read_image(saved(photo, tmp_path / name, format="JPEG")).shape == (24, 40, 3)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damage_anywhere_gives_an_image_or_a_data_error(data):
    buffer = io.BytesIO()
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF"]))
    Image.fromarray(np.arange(16 * 12 * 3, dtype=np.uint8).reshape(12, 16, 3)).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = decode_image(bytes(content), "damaged")
    except DataError:
        return
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
