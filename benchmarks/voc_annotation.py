"""How fast annotations are checked: XML files per second on one core, alone and together with their images' headers.

The files are made for it: three objects each, about as many as PASCAL VOC has, with small JPEGs. ``--voc`` measures a
folder of your own instead. The rates are of processor time, so that other work on the machine does not count.

  python -m benchmarks.voc_annotation [--files 5000]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from utils.annotate import derive_classes, make_records, read_dataset
from utils.annotations import parse_annotation
from utils.image_headers import probe
from utils.problems import Problems
from utils.progress import Quiet
from utils.splits import Source, SplitRule, find_sources
from utils.voc import annotation_path_for, image_path_for, index_images

OBJECT = """\t<object>
\t\t<name>{name}</name>
\t\t<pose>Unspecified</pose>
\t\t<truncated>0</truncated>
\t\t<difficult>0</difficult>
\t\t<bndbox>
\t\t\t<xmin>{x}</xmin>
\t\t\t<ymin>{y}</ymin>
\t\t\t<xmax>{right}</xmax>
\t\t\t<ymax>{bottom}</ymax>
\t\t</bndbox>
\t</object>
"""
ANNOTATION = """<annotation>
\t<folder>JPEGImages</folder>
\t<filename>{stem}.jpg</filename>
\t<source>
\t\t<database>Unknown</database>
\t</source>
\t<size>
\t\t<width>160</width>
\t\t<height>120</height>
\t\t<depth>3</depth>
\t</size>
\t<segmented>0</segmented>
{objects}</annotation>
"""


def make_voc(root: Path, files: int, objects: int, rng: np.random.Generator) -> None:
    """Writes VOC2007 with ``files`` annotations of ``objects`` boxes each."""
    folder = root / "VOC2007"
    for name in ("Annotations", "JPEGImages"):
        (folder / name).mkdir(parents=True)
    photo = cv2.imencode(".jpg", rng.integers(0, 255, (120, 160, 3), np.uint8))[1].tobytes()
    for number in range(files):
        corners = rng.integers(0, (80, 60), (objects, 2))
        sizes = rng.integers(8, (80, 60), (objects, 2))
        text = "".join(
            OBJECT.format(name=f"class{i % 20}", x=x, y=y, right=x + w, bottom=y + h)
            for i, ((x, y), (w, h)) in enumerate(zip(corners, sizes, strict=True))
        )
        stem = f"{number:06}"
        (folder / "Annotations" / f"{stem}.xml").write_text(ANNOTATION.format(stem=stem, objects=text))
        (folder / "JPEGImages" / f"{stem}.jpg").write_bytes(photo)


def measure(root: Path, rounds: int) -> None:
    """Prints the rates for every year below ``root``."""
    for source in find_sources([root], None, SplitRule(), Problems()):
        index = index_images(source.folder)
        stems = [stem for split in source.splits.values() for stem in split]
        xml_paths = [annotation_path_for(source.folder, stem) for stem in stems]
        image_paths = [image_path_for(source.folder, stem, index) for stem in stems]
        seconds = [_seconds(source, xml_paths, image_paths) for _ in range(rounds)]
        parse, probing, whole = len(stems) / np.median(seconds, axis=0)
        print(f"VOC{source.year}: {len(stems)} files, median of {rounds} rounds")
        print(f"  XML alone              {parse:8,.0f} files/s")
        print(f"  image headers alone    {probing:8,.0f} files/s")
        print(f"  both, checked, records {whole:8,.0f} files/s")


def _seconds(source: Source, xml_paths: list[Path], image_paths: list[Path]) -> tuple[float, float, float]:
    problems = Problems()
    times = [time.process_time()]
    for path in xml_paths:
        parse_annotation(path, problems)
    times.append(time.process_time())
    for path in image_paths:
        probe(path)
    times.append(time.process_time())
    dataset = read_dataset([source], False, problems, Quiet())
    make_records(dataset, derive_classes(dataset), problems)
    times.append(time.process_time())
    return times[1] - times[0], times[2] - times[1], times[3] - times[2]


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=5000, help="how many to make (default: 5000)")
    parser.add_argument("--objects", type=int, default=3, help="boxes in each (default: 3)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--voc", type=Path, help="measure this VOCdevkit folder instead")
    args = parser.parse_args()
    if args.voc:
        measure(args.voc, args.rounds)
        return
    with tempfile.TemporaryDirectory() as folder:
        make_voc(Path(folder), args.files, args.objects, np.random.default_rng(0))
        measure(Path(folder), args.rounds)


if __name__ == "__main__":
    main()
