"""Images per second of the training loader: decode, augment, assign, batch.

  python -m benchmarks.loader [--size 416] [--images 256] [--threads 2]

Photos are drawn at 640x480 and read from disk as in training, with the default augmentation.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from engine.dataset import DetectionDataset
from engine.plan import detector_spec
from utils.annotations import parse_annotation
from utils.config import DataConfig, ModelConfig, RunConfig
from utils.recipe_config import AugmentConfig, LossConfig
from utils.synthetic import CLASS_NAMES, make_dataset
from utils.types import Record

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Draws photos, loads them for several epochs, prints the median rate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        records = drawn_records(Path(folder), given.images)
        data = training_data(Path(folder), records, given.size, given.threads)
        rates = []
        for epoch in range(given.epochs):
            start = time.perf_counter()
            images = sum(len(batch.images) for batch in data.training_batches(epoch, given.batch))
            rates.append(images / (time.perf_counter() - start))
    first, *rest = rates
    print(f"{given.size} px, {given.threads} threads: median {statistics.median(rest):.0f} images/s")
    print(f"from {min(rest):.0f} to {max(rest):.0f} over {len(rest)} epochs; the first, with cold files, {first:.0f}")


def training_data(folder: Path, records: list[Record], size: int, threads: int) -> DetectionDataset:
    """The loader of a training with the default recipe; the class list goes into ``folder``."""
    (folder / "classes.txt").write_text("\n".join(CLASS_NAMES))
    config = RunConfig(
        data=DataConfig(classes=str(folder / "classes.txt")),
        model=ModelConfig(input_size=size, anchors=str(ROOT / "model_data" / "yolo_anchors.txt")),
    )
    return DetectionDataset(records, detector_spec(config), LossConfig(), AugmentConfig(), 0, threads)


def drawn_records(folder: Path, images: int, size_hw: tuple[int, int] = (480, 640)) -> list[Record]:
    """Photos drawn into ``folder``."""
    make_dataset(folder, images, seed=0, size_hw=size_hw)
    records = []
    for xml in sorted((folder / "VOC2007" / "Annotations").glob("*.xml")):
        annotation = parse_annotation(xml)
        boxes = np.array([item.box_xyxy for item in annotation.objects], np.float64).reshape(-1, 4)
        classes = np.array([CLASS_NAMES.index(item.name) for item in annotation.objects], np.int64)
        image = folder / "VOC2007" / "JPEGImages" / f"{annotation.image_id}.jpg"
        records.append(Record(str(image), boxes, classes))
    return records


if __name__ == "__main__":
    main()
