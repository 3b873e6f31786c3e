"""The optimizer of a phase."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from utils.config import TrainConfig

NOT_DECAYED = ("bias", "gamma", "beta")
# Keras would number unnamed optimizers through the process; a checkpoint needs the same names every time.
NAME = "optimizer"


class SharedRate:
    """Lets some variables of an optimizer take a share of its rate alone, decay and all."""

    shares: Sequence[float] = ()
    """Of each variable, in their order; none: all of it."""

    def own_rate(self, variable: Any, rate: Any) -> Any:
        """What ``variable`` takes of ``rate``."""
        share = self.shares[self._get_variable_index(variable)] if self.shares else 1.0  # type: ignore[attr-defined]
        return rate if share == 1.0 else rate * share


class SharedSGD(SharedRate, keras.optimizers.SGD):  # type: ignore[misc]
    """Keras' SGD with such rates."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """The update of one variable; part of ``apply``."""
        super().update_step(gradient, variable, self.own_rate(variable, learning_rate))


class FusedAdam(SharedRate, keras.optimizers.Adam):  # type: ignore[misc]
    """Keras' Adam with one operation a weight in place of some thirty.

    The graph of a step has two fifths fewer nodes then, which takes less time to make and to optimize.
    """

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """An update of ``trainable_variables`` by ``grads``, in their order."""
        step = tf.cast(self.iterations, tf.float32) + 1
        betas = [tf.constant(beta, tf.float32) for beta in (self.beta_1, self.beta_2)]
        self._numbers = {
            **{f"beta{number}": beta for number, beta in enumerate(betas, start=1)},
            **{f"beta{number}_power": tf.pow(beta, step) for number, beta in enumerate(betas, start=1)},
            "epsilon": tf.constant(self.epsilon, tf.float32),
        }
        super().apply(grads, trainable_variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """The update of one variable; part of ``apply``."""
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            grad=gradient,
            lr=self.own_rate(variable, learning_rate),
            **self._numbers,
        )


class FusedAdamW(FusedAdam, keras.optimizers.AdamW):  # type: ignore[misc]
    """Keras' AdamW, so computed, each variable decaying by its own rate."""

    def _apply_weight_decay(self, variables: Any) -> None:
        """Keras' part of ``apply``, which knows one rate; done with each update instead."""

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """The decay and the update of one variable; part of ``apply``."""
        if self._use_weight_decay(variable):
            variable.assign_sub(variable * self.weight_decay * self.own_rate(variable, learning_rate))
        super().update_step(gradient, variable, learning_rate)


def build_optimizer(
    train: TrainConfig, variables: list[Any], shares: Sequence[float] = ()
) -> keras.optimizers.Optimizer:
    """A fresh optimizer for ``variables``, its slots made; the learning rate is set by the schedule at every step.

    ``shares`` of that rate are what each variable takes; none: all of it.
    """
    rate = train.learning_rate
    optimizer: keras.optimizers.Optimizer
    if train.optimizer == "sgd":
        optimizer = SharedSGD(rate, name=NAME, momentum=train.momentum, nesterov=True)
    elif train.optimizer == "adam" or train.weight_decay == 0:
        optimizer = FusedAdam(rate, name=NAME, beta_1=train.momentum)
    else:
        optimizer = FusedAdamW(rate, name=NAME, beta_1=train.momentum, weight_decay=train.weight_decay)
        optimizer.exclude_from_weight_decay(var_names=list(NOT_DECAYED))
    optimizer.shares = shares
    optimizer.build(variables)
    return optimizer
