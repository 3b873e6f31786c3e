"""Where a training step of the EfficientNet-B0 detector goes, and how far each part is from what this machine could do.

Everything computes on one thread, so that parts do not overlap, and TensorFlow's profiler times them. The least that a
part can take is the larger of two: its multiplications and additions at the rate of a product of two large matrices of
the same type, and its inputs and outputs, each moved once, at the rate at which a large array is copied. What fits into
a cache, is fused into another part, or needs fewer multiplications, may take less.

    python -m benchmarks.step_profile --phase frozen
    python -m benchmarks.step_profile --phase unfrozen --precision mixed_bfloat16
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from benchmarks.train_step import SPEC, training_step
from nets.detector import build_detector, freeze_backbone

PARTS: dict[str, tuple[str, ...]] = {
    "convolutions, with what is fused into them": ("Conv2D", "FusedConv2D"),
    "their gradients for the input": ("Conv2DBackpropInput",),
    "their gradients for the kernel": ("Conv2DBackpropFilter",),
    "matrix products (1x1 convolutions that learn), with both gradients": ("MatMul", "FusedMatMul"),
    "depthwise convolutions": ("DepthwiseConv2dNative", "FusedDepthwiseConv2dNative"),
    "their gradients": ("DepthwiseConv2dNativeBackpropInput", "DepthwiseConv2dNativeBackpropFilter"),
    "batch normalization": ("FusedBatchNormV3",),
    "its gradient": ("FusedBatchNormGradV3",),
    "swish": ("Swish", "Sigmoid"),
    "its gradient, with that of a mean": ("StatefulPartitionedCall", "PartitionedCall", "multiply_multiply_fusion"),
    "casts": ("Cast",),
}
"""Types of operations, as they are called in the graph or, with other prefixes, when they run; XLA has its own name."""
REST = "the rest: sums, products, optimizer"
TYPES = {name: part for part, names in PARTS.items() for name in names}
LARGE = 2048
COPIED_MIB = 256


@dataclass
class Work:
    """Floating-point operations and bytes moved."""

    flops: float = 0.0
    bytes: float = 0.0


@dataclass(frozen=True)
class Limits:
    """Floating-point operations and bytes a second."""

    flops: float
    bytes: float

    def least(self, work: Work) -> float:
        """Seconds that ``work`` takes at least."""
        return max(work.flops / self.flops, work.bytes / self.bytes)


def part_of(operation: str) -> str:
    """The part that an operation of this type belongs to, whatever library runs it."""
    return TYPES.get(operation.removeprefix("_").removeprefix("Mkl").removeprefix("Native"), REST)


def work_of(graph: tf.Graph) -> dict[str, Work]:
    """What each part of a step has to do."""
    found: dict[str, Work] = defaultdict(Work)
    for operation in _needed(graph):
        if _is_fused(operation):
            continue
        part = part_of(operation.type)
        found[part].flops += _flops(operation)
        found[part].bytes += sum(_bytes(tensor) for tensor in (*operation.inputs, *operation.outputs))
    return found


def _is_fused(operation: tf.Operation) -> bool:
    """Whether it is a batch normalization by known moments, which becomes part of the convolution before it."""
    still = operation.type == "FusedBatchNormV3" and not operation.get_attr("is_training")
    return still and operation.inputs[0].op.type == "Conv2D"


def _needed(graph: tf.Graph) -> set[tf.Operation]:
    """The operations that results or variables depend on: the others do not run."""
    left = [tensor.op for tensor in graph.outputs]
    left += [operation for operation in graph.get_operations() if operation.type.startswith("Assign")]
    found: set[tf.Operation] = set()
    while left:
        operation = left.pop()
        if operation not in found:
            found.add(operation)
            left += [tensor.op for tensor in operation.inputs]
    return found


def _bytes(tensor: tf.Tensor) -> int:
    known = tensor.shape.is_fully_defined() and tensor.dtype not in (tf.resource, tf.variant)
    return tensor.shape.num_elements() * tensor.dtype.size if known else 0


def _flops(operation: tf.Operation) -> float:
    inputs, kind = operation.inputs, operation.type
    if kind == "MatMul":
        columns = inputs[0].shape[0 if operation.get_attr("transpose_a") else 1]
        return 2.0 * operation.outputs[0].shape.num_elements() * columns
    if not kind.startswith(("Conv2D", "DepthwiseConv2d")):
        return 0.0
    forward = kind in ("Conv2D", "DepthwiseConv2dNative")
    kernel = operation.outputs[0] if kind.endswith("BackpropFilter") else inputs[1]
    # Every weight of a kernel is used once at every position of the output.
    positions = math.prod((operation.outputs[0] if forward else inputs[2]).shape[:3])
    return 2.0 * positions * kernel.shape.num_elements()


def times_of(step: Callable[[], Any], steps: int) -> tuple[float, dict[str, float]]:
    """Seconds of a step, and of each part of it."""
    found: dict[str, float] = defaultdict(float)
    options = tf.profiler.experimental.ProfilerOptions(host_tracer_level=2, python_tracer_level=0)
    with tempfile.TemporaryDirectory() as folder:
        with tf.profiler.experimental.Profile(folder, options):
            began = time.perf_counter()
            for _ in range(steps):
                step()
            whole = (time.perf_counter() - began) / steps
        (file,) = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(file.read_bytes())
    for kind, seconds in _events(space):
        found[part_of(kind)] += seconds / steps
    # Its events lie within each other.
    found[REST] = whole - sum(seconds for part, seconds in found.items() if part != REST)
    return whole, found


def _events(space: Any) -> Iterable[tuple[str, float]]:
    """Type and seconds of everything that ran."""
    (host,) = (plane for plane in space.planes if plane.name == "/host:CPU")
    for line in host.lines:
        for event in line.events:
            # name:type
            yield host.event_metadata[event.metadata_id].name.rpartition(":")[2], event.duration_ps / 1e12


def limits(dtype: tf.DType) -> Limits:
    """What this machine does on one thread."""
    matrix = tf.cast(tf.random.normal([LARGE, LARGE]), dtype)
    array = tf.zeros([COPIED_MIB << 18])
    product = tf.function(lambda: tf.reduce_sum(tf.cast(matrix @ matrix, tf.float32)))
    copy = tf.function(lambda: array + 1.0)
    return Limits(2.0 * LARGE**3 / fastest(product), 2.0 * 4 * array.shape.num_elements() / fastest(copy))


def fastest(act: Callable[[], tf.Tensor], times: int = 7) -> float:
    """Seconds of the fastest of so many, after one that may trace."""
    act()
    found = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        found.append(time.perf_counter() - began)
    return min(found)


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phase", choices=("frozen", "unfrozen"), default="unfrozen", help="whether the backbone is")
    parser.add_argument("--precision", choices=("float32", "mixed_bfloat16"), default="float32")
    parser.add_argument("--size", type=int, default=416, help="side of the input in pixels, a multiple of 32")
    parser.add_argument("--batch", type=int, default=4, help="images a step")
    parser.add_argument("--steps", type=int, default=5, help="profiled steps")
    given = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = build_detector(SPEC)
    freeze_backbone(model, given.phase == "frozen")
    step = training_step(model, given.precision)
    images = tf.random.uniform([given.batch, given.size, given.size, 3], 0, 255, seed=0)
    for _ in range(2):
        step(images)
    work = work_of(step.get_concrete_function(images).graph)  # type: ignore[attr-defined]
    able = limits(tf.float32 if given.precision == "float32" else tf.bfloat16)
    whole, times = times_of(lambda: float(step(images)), given.steps)
    print(
        f"{given.phase}, {given.precision}, {given.batch} images of {given.size} px, one thread: {1e3 * whole:.0f} ms "
        f"a step; a product of two {LARGE}x{LARGE} matrices: {able.flops / 1e9:.0f} GFLOP/s; copying: "
        f"{able.bytes / 1e9:.1f} GB/s"
    )
    print("| part | ms | share | least, ms | times the least |\n|---|---|---|---|---|")
    for part in (*PARTS, REST):
        seconds, least = times[part], able.least(work[part])
        if seconds < 0.0005:
            continue
        shown = f"{1e3 * least:.0f} | {seconds / least:.1f}" if part != REST and least else " | "
        print(f"| {part} | {1e3 * seconds:.0f} | {seconds / whole:.0%} | {shown} |")


if __name__ == "__main__":
    main()
