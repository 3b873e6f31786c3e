"""YOLO11n from random weights, trained and run by Ultralytics; benchmarks/learning.py calls it in their environment.

VENV/bin/python benchmarks/yolo11n.py train data.yaml FOLDER --epochs 300 --size 416
VENV/bin/python benchmarks/yolo11n.py find FOLDER/run/weights/best.pt list.txt detection-results --size 416
"""

import argparse
from pathlib import Path

from ultralytics import YOLO  # type: ignore[import-not-found]

BATCH = 16
LOWEST_SCORE, NMS_IOU = 0.001, 0.7
"""What Ultralytics measures with."""


def train(given: argparse.Namespace) -> None:
    """Their own recipe, but for what would start from a download."""
    YOLO("yolo11n.yaml").train(
        data=given.data,
        project=given.out,
        name="run",
        epochs=given.epochs,
        imgsz=given.size,
        batch=BATCH,
        device="cpu",
        workers=0,
        pretrained=False,
        amp=False,
        plots=False,
        seed=given.seed,
    )


def find(given: argparse.Namespace) -> None:
    """A text file of detections for every photo of the list, in the form that get_map.py --from-files reads."""
    model, out = YOLO(given.data), Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    for line in Path(given.list).read_text().splitlines():
        photo = Path(line)
        found = model.predict(photo, imgsz=given.size, conf=LOWEST_SCORE, iou=NMS_IOU, device="cpu", verbose=False)[0]
        rows = zip(found.boxes.xyxy.tolist(), found.boxes.conf.tolist(), found.boxes.cls.tolist(), strict=True)
        lines = [f"{found.names[int(kind)]} {score!r} {' '.join(map(repr, box))}\n" for box, score, kind in rows]
        (out / f"{photo.stem}.txt").write_text("".join(lines))


def main() -> None:
    """Trains or finds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    training = verbs.add_parser("train", help="train from random weights")
    training.add_argument("data", help="data.yaml of the photos")
    training.add_argument("out", help="folder for the run")
    training.add_argument("--epochs", type=int, required=True, help="what the schedule is made for")
    training.add_argument("--seed", type=int, default=0, help="of the random numbers (default: 0)")
    training.set_defaults(run=train)
    finding = verbs.add_parser("find", help="write what a trained model finds")
    finding.add_argument("data", metavar="weights", help="best.pt of a run")
    finding.add_argument("list", help="text file with a photo a line")
    finding.add_argument("out", help="folder for the text files")
    finding.set_defaults(run=find)
    for verb in (training, finding):
        verb.add_argument("--size", type=int, default=416, help="side of the input (default: 416)")
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    main()
