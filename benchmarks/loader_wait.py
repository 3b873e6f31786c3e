"""How long a fast trainer waits for its data: a consumer that takes so many images a second from the training loader.

  python -m benchmarks.loader_wait [--rate 300] [--seconds 60] [--threads 2]

Photos are drawn at 640x480 and read from disk as in training, with the default augmentation. The consumer stands for a
GPU: it computes nothing here, and is busy for batch / rate seconds with each batch. Where it waits for a batch, that
comes on top. An epoch is so long that its beginning counts as little as in training.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from pathlib import Path

from benchmarks.loader import drawn_records, training_data
from engine.waiting import Waiting

EPOCH_IMAGES = 4096


def main() -> None:
    """Draws photos, takes batches for a while, prints the share of the time that was waiting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=300, help="images a second that the consumer can take")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--images", type=int, default=256, help="different photos")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        records = drawn_records(Path(folder), given.images)
        repeated = list(itertools.islice(itertools.cycle(records), EPOCH_IMAGES))
        data = training_data(Path(folder), repeated, given.size, given.threads)
        epochs = (data.training_batches(epoch, given.batch) for epoch in itertools.count())
        batches = itertools.chain.from_iterable(epochs)
        # Threads that have to be started, and files that are cold, are no matter of a long run.
        for _ in range(8):
            next(batches)
        waiting, images, started = Waiting(), 0, time.monotonic()
        for batch in waiting.over(batches):
            images += len(batch.images)
            busy_until = time.monotonic() + len(batch.images) / given.rate
            time.sleep(max(0.0, busy_until - time.monotonic()))
            if time.monotonic() - started >= given.seconds:
                break
        seconds = time.monotonic() - started
    load = " ".join(f"{one:.2f}" for one in os.getloadavg())
    print(f"{given.size} px, {given.threads} threads, {os.cpu_count()} CPU cores, load average {load}")
    print(f"a consumer of {given.rate:.0f} images/s took {images / seconds:.0f} images/s over {seconds:.0f} s")
    print(f"waited for {waiting.seconds / seconds:.2%} of the time")


if __name__ == "__main__":
    main()
