"""One training step and one validation step, over any tf.distribute strategy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from engine.averaging import WeightAverage
from engine.dataset import Batch
from engine.devices import forward
from engine.optimizer import build_optimizer
from engine.precision import LossScale, gpu_capabilities, precision_for
from engine.task import Task
from engine.workers import Workers
from nets.precision import computing_in
from utils.config import TrainConfig
from utils.errors import ConfigError

IMAGES = tf.TensorSpec([None, None, None, 3], tf.uint8)
SCALAR = tf.TensorSpec([], tf.float32)
L2 = "l2"
LOSS_SCALE = "loss_scale"


def loss_parts(task: Task) -> tuple[str, ...]:
    """Names of the parts that the learner's loss is the sum of."""
    return (*task.parts, L2)


def named_parts(parts: Sequence[str], values: np.ndarray, prefix: str) -> dict[str, float]:
    """``values`` of loss ``parts`` and their sum, by the names they have in metrics."""
    named = {f"{prefix}_{part}": float(value) for part, value in zip(parts, values, strict=True)}
    return {f"{prefix}_loss": float(values.sum()), **named}


class Learner:
    """The model of a task in one phase: frozen or not, with its optimizer. Made anew for each phase.

    Every step runs on all replicas of ``strategy``; the batch of this process is cut into equal shards for its own.
    ``average`` follows each. With ``config.accumulate`` the batch goes through the network in so many parts, one after
    the other. Training steps compute in ``config.precision``; validation, like prediction, in float32.
    """

    def __init__(
        self,
        task: Task,
        config: TrainConfig,
        strategy: tf.distribute.Strategy,
        frozen_backbone: bool,
        average: WeightAverage | None = None,
    ) -> None:
        self.task = task
        self.model = task.model
        self.config = config
        self.strategy = strategy
        self.average = average
        self.parts = loss_parts(task)
        self.traced = False
        self.gradient_norm = 0.0
        self.workers = Workers(strategy)
        self.precision = precision_for(config.precision, gpu_capabilities())
        self.loss_scale = LossScale() if self.precision == "mixed_float16" else None
        # With a loss scale, whether there is an update at all is decided between gradients and update.
        self.collects = config.accumulate > 1 or self.loss_scale is not None
        task.freeze(True)
        head = {id(variable) for variable in self.model.trainable_variables}
        task.freeze(frozen_backbone, bool(config.freeze_batch_norm))
        self.trainable = list(self.model.trainable_variables)
        rate = 1.0 if config.backbone_rate is None else config.backbone_rate
        shares = [1.0 if id(variable) in head else rate for variable in self.trainable]
        self.kernels = [kernel.value for kernel in task.head_kernels()]
        with strategy.scope():
            self.optimizer = build_optimizer(config, self.trainable, shares)
            self.sums = [_zeros(variable) for variable in self.trainable] if self.collects else []
        # Without a signature every new number of boxes in a batch would trace the step again, which takes many seconds
        # and several workers would do at different times.
        signature = (IMAGES, dict(task.target_signature))
        # Nothing in them loops or decides by tensors, for which AutoGraph would read every function again.
        as_graph = partial(tf.function, autograph=False)
        self._train = as_graph(self._train_on_replicas, signature)
        self._collect = as_graph(self._collect_on_replicas, (*signature, SCALAR, SCALAR))
        self._update = as_graph(self._update_on_replicas, (SCALAR,))
        self._overflows = as_graph(self._overflows_on_replicas)
        self._skip = as_graph(self._skip_on_replicas)
        self._validate = as_graph(self._validation_parts, signature)

    def trace(self) -> None:
        """Makes the graph of a training step, which takes long and changes nothing. Made once, it is kept."""
        if not self.traced and not tf.config.functions_run_eagerly():
            steps = [self._collect, self._update] if self.collects else [self._train]
            if self.loss_scale is not None:
                steps += [self._overflows, self._skip]
            # Validation may stop between its batches, but not within the first.
            for step in (*steps, self._validate):
                step.get_concrete_function(*(step.input_signature or ()))
        self.traced = True

    def train_step(self, batch: Batch, learning_rate: float) -> np.ndarray:
        """Learns from ``batch``; the loss parts named by ``parts`` before the update, [P] float32.

        In float16 a step whose gradients overflow changes no weight. DivergedError after many such in a row.
        ``gradient_norm`` is that of the step then.
        """
        self.optimizer.learning_rate.assign(learning_rate)
        found = self._accumulated(batch) if self.collects else self._train(batch.images, batch.targets).numpy()
        self.gradient_norm = float(found[-1])
        return found[:-1]

    def _accumulated(self, batch: Batch) -> np.ndarray:
        """What ``_train`` gives, of the step of ``batch``, whose gradient is summed up part by part."""
        parts = np.split(np.arange(len(batch.images)), self.config.accumulate)
        targets = [{name: value[rows] for name, value in batch.targets.items()} for rows in parts]
        counts = [len(batch.images), *map(len, parts)]
        own = np.array([[self.task.weight(one) for one in (batch.targets, *targets)], counts]).T
        # Of all workers first: one of them may have nothing in a part where others have something.
        whole, *weights = self.workers.sum(own).max(axis=1)
        scale = 1.0 if self.loss_scale is None else self.loss_scale.value
        collected = [
            self._collect(batch.images[rows], part, float(share / whole), scale).numpy()
            for rows, part, share in zip(parts, targets, weights, strict=True)
        ]
        finite, norm = self.loss_scale is None or float(self._overflows()) == 0.0, 0.0
        if finite:
            norm = float(self._update(scale))
        else:
            self._skip()
        if self.loss_scale is not None:
            self.loss_scale.follow(finite)
        return np.append(np.sum(collected, axis=0), np.float32(norm))

    def validation_step(self, batch: Batch) -> np.ndarray:
        """The loss parts of ``batch`` without learning, [P] float32."""
        return self._validate(batch.images, batch.targets).numpy()

    def optimizer_tensors(self) -> dict[str, np.ndarray]:
        """Step counter, slots and in float16 the state of the loss scale, under ``optimizer/``."""
        tensors = {name: np.asarray(variable) for name, variable in self._optimizer_variables().items()}
        if self.loss_scale is not None:
            tensors[LOSS_SCALE] = self.loss_scale.tensor()
        return {f"optimizer/{name}": value for name, value in tensors.items()}

    def restore_optimizer(self, tensors: Mapping[str, np.ndarray]) -> None:
        """The inverse of ``optimizer_tensors`` (names without ``optimizer/``). ConfigError for another optimizer's.

        The loss scale starts anew where the state is that of another precision.
        """
        tensors = dict(tensors)
        scale = tensors.pop(LOSS_SCALE, None)
        if self.loss_scale is not None and scale is not None:
            self.loss_scale.restore(scale)
        variables = self._optimizer_variables()
        if {name: tuple(v.shape) for name, v in variables.items()} != {name: t.shape for name, t in tensors.items()}:
            raise ConfigError(
                f"train.optimizer: {self.config.optimizer}: the saved state is another optimizer's, or that of a phase "
                "that trained other layers (train.freeze_epochs, train.phases): restore the field, or start a new run "
                "with --model.weights RUN/last"
            )
        for name, variable in variables.items():
            variable.assign(tensors[name])

    def _optimizer_variables(self) -> dict[str, Any]:
        return {f"{i:04d}/{variable.path}": variable for i, variable in enumerate(self.optimizer.variables)}

    def _shard(self, value: Any) -> Any:
        """This replica's part of ``value`` [B, ...]."""
        if self.workers.replicas_here == 1:
            return value
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group % self.workers.replicas_here
        # Cut before it goes to the device of the replica.
        with tf.device("CPU:0"):
            size = tf.shape(value)[0] // self.workers.replicas_here
            return value[replica * size : (replica + 1) * size]

    def _train_on_replicas(self, images: Any, targets: dict[str, Any]) -> Any:
        with computing_in(self.model, self.precision):
            parts = self.strategy.run(self._replica_step, args=(images, targets))
        if self.average is not None:
            self.average.update()
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)

    def _collect_on_replicas(self, images: Any, targets: dict[str, Any], share: Any, scale: Any) -> Any:
        with computing_in(self.model, self.precision):
            parts = self.strategy.run(self._replica_collect, args=(images, targets, share, scale))
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)

    def _update_on_replicas(self, scale: Any) -> Any:
        norms = self.strategy.run(self._replica_update, args=(scale,))
        if self.average is not None:
            self.average.update()
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, norms, axis=None)

    def _overflows_on_replicas(self) -> Any:
        """How many replicas have summed up gradients that are not numbers."""
        found = self.strategy.run(self._replica_overflow)
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, found, axis=None)

    def _skip_on_replicas(self) -> None:
        self.strategy.run(self._replica_forget)
        if self.average is not None:
            # Its updates are counted by steps.
            self.average.update()

    def _replica_step(self, images: Any, targets: dict[str, Any]) -> Any:
        parts, gradients = self._gradients(images, targets)
        return tf.concat([parts, self._apply(gradients)[None]], axis=0)

    def _replica_collect(self, images: Any, targets: dict[str, Any], share: Any, scale: Any) -> Any:
        parts, gradients = self._gradients(images, targets, share, scale)
        for total, gradient in zip(self.sums, gradients, strict=True):
            total.assign_add(gradient)
        return parts

    def _replica_update(self, scale: Any) -> Any:
        norm = self._apply([tf.convert_to_tensor(total) / scale for total in self.sums])
        self._replica_forget()
        return norm

    def _replica_forget(self) -> None:
        for total in self.sums:
            total.assign(tf.zeros_like(total))

    def _replica_overflow(self) -> Any:
        finite = [tf.reduce_all(tf.math.is_finite(tf.convert_to_tensor(total))) for total in self.sums]
        return 1.0 - tf.cast(tf.reduce_all(finite), tf.float32)

    def _gradients(
        self, images: Any, targets: dict[str, Any], share: Any = 1.0, scale: Any = 1.0
    ) -> tuple[Any, list[Any]]:
        """The loss parts, [P], and their gradients times ``scale``.

        ``share`` is what the images count for in their update.
        """
        replicas = self.strategy.num_replicas_in_sync
        images, targets = self._shard(images), {name: self._shard(value) for name, value in targets.items()}
        with tf.GradientTape() as tape:
            outputs = self.model(images, training=True)
            sums = _sum_over_replicas if replicas > 1 else tf.identity
            task_parts = [share * part for part in self.task.loss(outputs, targets, sums)]
            parts = [*task_parts, self._l2() / (replicas * self.config.accumulate)]
            loss = scale * tf.add_n(parts)
        return tf.stack(parts), tape.gradient(loss, [variable.value for variable in self.trainable])

    def _apply(self, gradients: list[Any]) -> Any:
        """An update. Returns the norm of ``gradients``."""
        replicas, limit = self.strategy.num_replicas_in_sync, self.config.clip_norm
        # They are scaled down to the norm of the whole batch's, which needs the sum over replicas first.
        if limit > 0 and replicas > 1:
            gradients = [g / replicas for g in _sum_over_replicas(gradients)]
        norm = tf.linalg.global_norm(gradients)
        if limit > 0:
            gradients, _ = tf.clip_by_global_norm(gradients, limit / replicas, norm)
        self.optimizer.apply(gradients, self.trainable)
        return norm

    def _l2(self) -> Any:
        return self.config.head_l2 * tf.add_n([tf.reduce_sum(tf.square(kernel)) for kernel in self.kernels])

    def _validation_parts(self, images: Any, targets: dict[str, Any]) -> Any:
        outputs = forward(self.model, images)
        return tf.stack([*self.task.loss(outputs, targets, training=False), self._l2()])


def _zeros(like: Any) -> tf.Variable:
    """A variable of its own on each replica."""
    return tf.Variable(
        tf.zeros(like.shape, like.dtype),
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.SUM,
    )


def _sum_over_replicas(value: Any) -> Any:
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)
