"""The optimizer of a phase."""

from __future__ import annotations

from typing import Any

import keras

from utils.config import TrainConfig

NOT_DECAYED = ("bias", "gamma", "beta")
# Keras would number unnamed optimizers through the process; a checkpoint needs the same names every time.
NAME = "optimizer"


def build_optimizer(train: TrainConfig, variables: list[Any]) -> keras.optimizers.Optimizer:
    """A fresh optimizer for ``variables``, its slots made; the learning rate is set by the schedule at every step."""
    rate = train.learning_rate
    optimizer: keras.optimizers.Optimizer
    if train.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(rate, name=NAME, momentum=train.momentum, nesterov=True)
    elif train.optimizer == "adam":
        optimizer = keras.optimizers.Adam(rate, name=NAME, beta_1=train.momentum)
    else:
        optimizer = keras.optimizers.AdamW(rate, name=NAME, beta_1=train.momentum, weight_decay=train.weight_decay)
        optimizer.exclude_from_weight_decay(var_names=list(NOT_DECAYED))
    optimizer.build(variables)
    return optimizer
