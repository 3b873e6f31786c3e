"""One training step and one validation step, over any tf.distribute strategy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from engine.dataset import Batch
from engine.optimizer import build_optimizer
from engine.task import Task
from utils.config import TrainConfig
from utils.errors import ConfigError

IMAGES = tf.TensorSpec([None, None, None, 3], tf.uint8)
L2 = "l2"


def loss_parts(task: Task) -> tuple[str, ...]:
    """Names of the parts that the learner's loss is the sum of."""
    return (*task.parts, L2)


class Learner:
    """The model of a task in one phase: frozen or not, with its optimizer. Made anew for each phase.

    Every step runs on all replicas of ``strategy``; the batch is cut into equal shards.
    """

    def __init__(
        self, task: Task, config: TrainConfig, strategy: tf.distribute.Strategy, frozen_backbone: bool
    ) -> None:
        self.task = task
        self.model = task.model
        self.config = config
        self.strategy = strategy
        self.parts = loss_parts(task)
        task.freeze(frozen_backbone)
        self.trainable = list(self.model.trainable_variables)
        self.kernels = [kernel.value for kernel in task.head_kernels()]
        with strategy.scope():
            self.optimizer = build_optimizer(config, self.trainable)
        # Without a signature every new number of boxes in a batch would trace the step again, which takes many seconds.
        signature = (IMAGES, dict(task.target_signature))
        several = strategy.num_replicas_in_sync > 1
        self._train = tf.function(self._train_on_replicas, None if several else signature, reduce_retracing=True)
        self._validate = tf.function(self._validation_parts, signature)

    def train_step(self, batch: Batch, learning_rate: float) -> np.ndarray:
        """Learns from ``batch``; the loss parts named by ``parts`` before the update, [P] float32."""
        self.optimizer.learning_rate.assign(learning_rate)
        return self._train(self._shards(batch.images), self._shards(batch.targets)).numpy()

    def validation_step(self, batch: Batch) -> np.ndarray:
        """The loss parts of ``batch`` without learning, [P] float32."""
        return self._validate(batch.images, batch.targets).numpy()

    def optimizer_tensors(self) -> dict[str, np.ndarray]:
        """Step counter and slots, under ``optimizer/``."""
        return {f"optimizer/{name}": np.asarray(variable) for name, variable in self._optimizer_variables().items()}

    def restore_optimizer(self, tensors: Mapping[str, np.ndarray]) -> None:
        """The inverse of ``optimizer_tensors`` (names without ``optimizer/``). ConfigError for another optimizer's."""
        variables = self._optimizer_variables()
        if {name: tuple(v.shape) for name, v in variables.items()} != {name: t.shape for name, t in tensors.items()}:
            raise ConfigError(f"train.optimizer: {self.config.optimizer}: the saved state is another optimizer's")
        for name, variable in variables.items():
            variable.assign(tensors[name])

    def _optimizer_variables(self) -> dict[str, Any]:
        return {f"{i:04d}/{variable.path}": variable for i, variable in enumerate(self.optimizer.variables)}

    def _shards(self, value: Any) -> Any:
        """``value`` (an array or a dict of arrays) cut along the batch into one shard per replica."""
        replicas = self.strategy.num_replicas_in_sync
        if isinstance(value, dict):
            return {name: self._shards(array) for name, array in value.items()}
        if replicas == 1:
            return tf.constant(value)
        parts = np.split(value, replicas)
        return self.strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group])
        )

    def _train_on_replicas(self, images: Any, targets: dict[str, Any]) -> Any:
        parts = self.strategy.run(self._replica_step, args=(images, targets))
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)

    def _replica_step(self, images: Any, targets: dict[str, Any]) -> Any:
        replicas = self.strategy.num_replicas_in_sync
        with tf.GradientTape() as tape:
            outputs = self.model(images, training=True)
            sums = _sum_over_replicas if replicas > 1 else tf.identity
            parts = [*self.task.loss(outputs, targets, sums), self._l2() / replicas]
            loss = tf.add_n(parts)
        gradients = tape.gradient(loss, [variable.value for variable in self.trainable])
        if self.config.clip_norm > 0:
            gradients = self._clipped(gradients)
        self.optimizer.apply(gradients, self.trainable)
        return tf.stack(parts)

    def _clipped(self, gradients: list[Any]) -> list[Any]:
        """Scaled down to the norm of the whole batch's gradient, which needs the sum over replicas first."""
        replicas = self.strategy.num_replicas_in_sync
        if replicas > 1:
            gradients = [g / replicas for g in _sum_over_replicas(gradients)]
        clipped, _ = tf.clip_by_global_norm(gradients, self.config.clip_norm / replicas)
        return clipped

    def _l2(self) -> Any:
        return self.config.head_l2 * tf.add_n([tf.reduce_sum(tf.square(kernel)) for kernel in self.kernels])

    def _validation_parts(self, images: Any, targets: dict[str, Any]) -> Any:
        outputs = self.model(images, training=False)
        return tf.stack([*self.task.loss(outputs, targets), self._l2()])


def _sum_over_replicas(value: Any) -> Any:
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)
