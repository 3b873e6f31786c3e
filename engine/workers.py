"""Processes that train one model in step: what each of them does, and how they agree on going on, stopping, failing."""

from __future__ import annotations

import hashlib
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import tensorflow as tf
from tensorflow.compiler.xla.tsl.protobuf.coordination_config_pb2 import CoordinatedJob
from tensorflow.python.eager import context

from engine.dataset import Batch, Shard
from engine.devices import gpu_advice
from engine.interrupts import StoppedError, StopRequest
from utils.cluster import VARIABLE, Cluster, read_cluster
from utils.errors import ConfigError, DataError, LostWorkerError
from utils.types import FloatArray

LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
)
OWN_GPU = re.compile(r"CUDA|cuDNN|BLAS|CUBIN", re.IGNORECASE)
"""What fails on a GPU of this process, whatever the other workers do."""
SILENT_S = 30
"""Seconds without a word of a worker after which it counts as gone."""
DIGEST_BYTES = 6
"""A whole number of so many bytes is exact in float64."""


class Workers:
    """All workers of a run, this process among them. Alone it agrees with itself, at no cost.

    Everything that talks to the others is called by all of them, in the same order.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        several = isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy)
        self.cluster = read_cluster() if several else Cluster()
        self.alone, self.chief = self.cluster.count == 1, self.cluster.chief
        self.shard = Shard(self.cluster.index, self.cluster.count)
        self.replicas_here = strategy.num_replicas_in_sync // self.cluster.count
        self._strategy = strategy
        self._sum = tf.function(self._sum_graph, input_signature=[tf.TensorSpec([None], tf.float64)])
        self.listen(StopRequest())

    def listen(self, stop: StopRequest) -> StopRequest:
        """Looks at ``stop`` from now on whenever workers agree. Returns the request that all of them know of."""
        self.own_stop = stop
        self.stop = stop if self.alone else StopRequest()
        return self.stop

    def sum(self, values: FloatArray) -> FloatArray:
        """The sum over all workers of arrays of one shape, float64."""
        given = np.asarray(values, np.float64)
        # Of nothing TensorFlow's own sum over CPUs ends the process.
        if self.alone or not given.size:
            return given
        return self._sum(given.ravel()).numpy().reshape(given.shape)

    def agree(self, error: DataError | None = None) -> None:
        """Where all meet: a stop that one was asked for becomes everybody's; an ``error`` of one a DataError of all."""
        if self.alone:
            return
        codes, failed = self._each(self.own_stop.exit_code, error is not None)
        self.stop.exit_code = int(codes.max())
        # The door of every worker looks at its own request.
        self.own_stop.exit_code = self.own_stop.exit_code or self.stop.exit_code
        self._raise_alike(error, failed)

    def on_chief(self, work: Callable[[], None]) -> None:
        """What the first worker alone does for all, such as pictures. A DataError of it is one of all.

        Of several a stop that it is asked for ends that work, and nothing else: the others are past theirs.
        """
        if self.alone:
            work()
            return
        error: DataError | None = None
        try:
            if self.chief:
                with self.own_stop.interrupting():
                    work()
        except DataError as raised:
            error = raised
        except StoppedError:
            pass
        (failed,) = self._each(error is not None)
        self._raise_alike(error, failed)

    @contextmanager
    def part(self) -> Iterator[None]:
        """Around each worker's own part of something. StoppedError and DataError of one are those of all."""
        if self.alone:
            yield
            return
        error: DataError | None = None
        try:
            yield
        except DataError as raised:
            error = raised
        except StoppedError:
            pass
        self.agree(error)
        if self.stop.made:
            raise StoppedError

    def in_step(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """``batches``, each once all workers have theirs; as many on all. What was ``dropped`` is that of all."""
        if self.alone:
            yield from batches
            return
        while True:
            with self.part(), self.own_stop.interrupting():
                batch = next(batches, None)
            if batch is None:
                return
            dropped = self.sum(np.array(batch.dropped))
            yield replace(batch, dropped=int(dropped))

    def refuse_differences(self, what: Callable[[], bytes]) -> None:
        """ConfigError unless ``what`` gives the same on all workers."""
        if self.alone:
            return
        digest = hashlib.sha256(what()).digest()
        (found,) = self._each(int.from_bytes(digest[:DIGEST_BYTES], "big"))
        for index, one in enumerate(found):
            if one != found[0]:
                raise ConfigError(
                    f"{self.cluster.name(index)}: config, data, weights or packages: not those of "
                    f"{self.cluster.name(0)}: give all workers the same command and the same files"
                )

    def _raise_alike(self, error: DataError | None, failed: FloatArray) -> None:
        if error is not None:
            raise error
        if failed.any():
            name = self.cluster.name(int(failed.argmax()))
            raise DataError(f"{name}: cannot use its data; its own output says why")

    def _each(self, *values: float) -> FloatArray:
        """What every worker gave: [V, W] float64."""
        given = np.zeros((len(values), self.cluster.count))
        given[:, self.cluster.index] = values
        return self.sum(given)

    def _sum_graph(self, values: tf.Tensor) -> tf.Tensor:
        def own() -> tf.Tensor:
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            first = tf.equal(replica % self.replicas_here, 0)
            return tf.where(first, values, tf.zeros_like(values))

        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, self._strategy.run(own), axis=None)


def default_strategy(say: Callable[[str], None]) -> tf.distribute.Strategy:
    """All workers that TF_CONFIG names; else all GPUs of this machine where there are several; else the one device.

    A GPU that is not used, and for want of what, is said.
    """
    if line := gpu_advice():
        say(line)
    cluster = read_cluster()
    if cluster.count > 1:
        return _join(cluster, say)
    several = len(tf.config.list_physical_devices("GPU")) > 1
    return tf.distribute.MirroredStrategy() if several else tf.distribute.get_strategy()


@contextmanager
def noticing_losses() -> Iterator[None]:
    """Makes of the many errors that the end of another worker causes one LostWorkerError (exit 4)."""
    try:
        yield
    except LOST as error:
        cluster = read_cluster()
        if cluster.count == 1:
            raise
        raise LostWorkerError(_loss(cluster, str(error))) from error


def _join(cluster: Cluster, say: Callable[[str], None]) -> tf.distribute.Strategy:
    say(f"{cluster.name(cluster.index)} of {cluster.count}: waiting for the others")
    main = threading.current_thread() is threading.main_thread()
    # Python would see Ctrl-C only when the last worker is there.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL) if main else None
    _be_patient(cluster)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except tf.errors.OpError as error:
        own, reason = cluster.addresses[cluster.index], error.message.splitlines()[0]
        raise ConfigError(f"{VARIABLE}: {own}: no worker can be started here: {reason}") from error
    finally:
        if main:
            signal.signal(signal.SIGINT, before)


def _be_patient(cluster: Cluster) -> None:
    """Gives workers longer to be heard of than TensorFlow's 10 s, which busy machines exceed. No public call does."""
    jobs = {"chief": cluster.chiefs, "worker": cluster.count - cluster.chiefs}
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader=f"/job:{'chief' if cluster.chiefs else 'worker'}/replica:0/task:0",
        heartbeat_timeout_in_ms=1000 * SILENT_S,
        coordinated_jobs=[CoordinatedJob(name=name, num_tasks=count) for name, count in jobs.items() if count],
    )


def _loss(cluster: Cluster, message: str) -> str:
    """Says who is gone, as far as TensorFlow's ``message`` tells."""
    tasks = re.findall(r"/job:(chief|worker)/(?:replica:\d+/)?task:(\d+)", message)
    indices = [int(number) + (cluster.chiefs if job == "worker" else 0) for job, number in tasks]
    others = [index for index in indices if index != cluster.index and index < cluster.count]
    # Where it names none, the cause may be another: above it stand traces, below it TensorFlow's own nodes and counts.
    below = re.compile(r"\s*(\[\[|\d+ (successful operations|derived errors ignored|root error)|$)")
    reasons = [line.strip() for line in message.splitlines() if not below.match(line)]
    reason = reasons[-1][:200] if reasons else ""
    if not others and reasons and OWN_GPU.search(reasons[-1]) and "NCCL" not in reasons[-1]:
        return f"{cluster.name(cluster.index)}: its GPU: {reason}: start all workers again with --resume"
    unnamed = f"another worker ({reason})" if reason else "another worker"
    who = cluster.name(others[0]) if others else unnamed
    return f"{who}: is gone or cannot be reached: start all workers again with --resume"
