"""Layers that Keras lacks or has only in a slower form, and the factory that names and seeds a network's layers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import tensorflow as tf

from nets.depthwise import depthwise_conv2d

PACKAGE = "efficientnet_yolo3"
LEAKY_SLOPE = 0.1
FLOAT32 = keras.DTypePolicy("float32")
"""Of layers that compute in float32 whatever the network computes in: give this very object as their dtype."""
STOCHASTIC_DEPTH = 0.2
RANDOM_STATE = "_seeds"
"""Ends the names of random generators, and of nothing else among a model's variables."""
KernelStart = Literal["fan_out", "glorot"]
"""How kernels are drawn: VarianceScaling(2, fan_out), truncated normal; or Glorot's uniform values.

Batch normalization makes their scale nothing to the outputs. It decides how fast Adam turns them: depthwise kernels of
fan-out values are so large that MobileNets hardly learn.
"""


def seed_for(seed: int, name: str) -> int:
    """A seed of its own for everything that has a name, the same in every process."""
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % (2**31 - 1)


def _replicas() -> tuple[int, Any]:
    """How many replicas train in step, and which of them this is."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return 1, 0
    return int(context.num_replicas_in_sync), context.replica_id_in_sync_group


@keras.saving.register_keras_serializable(PACKAGE)
class FusedBatchNormalization(keras.layers.Layer):  # type: ignore[misc]
    """Batch normalization (arXiv:1502.03167) over [B, H, W, C] through TF's fused kernel.

    Numbers, weights (gamma, beta, moving_mean, moving_variance) and their order are those of
    ``keras.layers.BatchNormalization``, whose unfused arithmetic is several times slower on CPU. As there,
    ``trainable = False`` also means that the moving statistics are used and stay still.

    Under tf.distribute with several replicas the batch moments are those of the global batch.
    """

    def __init__(self, momentum: float = 0.99, epsilon: float = 1e-3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.momentum = momentum
        self.epsilon = epsilon

    def build(self, input_shape: Sequence[int | None]) -> None:
        """Makes the four weights, one value per channel."""
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer="ones", autocast=False)
        self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros", autocast=False)
        # Every replica computes the same update from the same global moments, so each writes its own copy.
        still = {"trainable": False, "autocast": False, "aggregation": "none"}
        self.moving_mean = self.add_weight(name="moving_mean", shape=shape, initializer="zeros", **still)
        self.moving_variance = self.add_weight(name="moving_variance", shape=shape, initializer="ones", **still)

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """[B, H, W, C] -> the same shape."""
        if not (training and self.trainable):
            moving_mean, moving_variance = tf.convert_to_tensor(self.moving_mean), self.moving_variance
            return self._fused(inputs, moving_mean, tf.convert_to_tensor(moving_variance), training=False)[0]
        outputs, mean, variance = self._global(inputs) if _replicas()[0] > 1 else self._local(inputs)
        half = inputs.dtype == tf.float16
        self._follow(self.moving_mean, mean, half)
        self._follow(self.moving_variance, variance, half)
        return outputs

    def _fused(self, inputs: tf.Tensor, mean: tf.Tensor, variance: tf.Tensor, training: bool) -> Any:
        return tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=mean,
            variance=variance,
            epsilon=self.epsilon,
            is_training=training,
        )

    def _local(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        empty = tf.zeros([0], tf.float32)
        outputs, mean, unbiased, *_ = self._fused(inputs, empty, empty, training=True)
        count = tf.cast(tf.reduce_prod(tf.shape(inputs)[:-1]), tf.float32)
        # The kernel reports the variance with Bessel's correction; Keras keeps the plain one.
        return outputs, mean, unbiased * ((count - 1.0) / count)

    def _global(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        x = tf.cast(inputs, tf.float32)
        # Sums around a point near the mean, the same on all replicas, keep the variance exact when the mean is large.
        shift = tf.stop_gradient(tf.convert_to_tensor(self.moving_mean))
        around = x - shift
        count = tf.cast(tf.reduce_prod(tf.shape(x)[:-1]), tf.float32)
        sums = [tf.reduce_sum(around, [0, 1, 2]), tf.reduce_sum(tf.square(around), [0, 1, 2]), count[None]]
        total = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.concat(sums, 0))
        channels = x.shape[-1]
        offset = total[:channels] / total[-1]
        variance = tf.nn.relu(total[channels:-1] / total[-1] - tf.square(offset))
        mean = offset + shift
        outputs = tf.nn.batch_normalization(
            x, mean, variance, tf.convert_to_tensor(self.beta), tf.convert_to_tensor(self.gamma), self.epsilon
        )
        return tf.cast(outputs, inputs.dtype), mean, variance

    def _follow(self, moving: keras.Variable, value: tf.Tensor, half: bool) -> None:
        value = tf.stop_gradient(value)
        if half:
            # One overflow would stay in the statistics for good.
            value = tf.where(tf.math.is_finite(value), value, tf.convert_to_tensor(moving))
        moving.assign(moving * self.momentum + value * (1.0 - self.momentum))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Arguments that rebuild the layer."""
        return {**super().get_config(), "momentum": self.momentum, "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(PACKAGE)
class SeededDropout(keras.layers.Layer):  # type: ignore[misc]
    """Dropout with a seed of its own, off while the layer is frozen.

    Replicas draw for the global batch and use their own part, so that they drop what one device would.
    ``whole_samples`` drops samples as a whole: stochastic depth, arXiv:1603.09382. The state is the counter of a
    ``keras.random.SeedGenerator``: it is in ``model.variables`` (not in ``model.weights``).
    """

    def __init__(self, rate: float, seed: int, whole_samples: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = rate
        self.seed = seed
        self.whole_samples = whole_samples
        # Keras would number unnamed generators through the process; a checkpoint needs the same name every time.
        self.seed_generator = keras.random.SeedGenerator(seed, name=f"{self.name}{RANDOM_STATE}")
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """[B, ...] -> the same shape; what is kept is scaled by 1 / (1 - rate)."""
        if not (training and self.trainable and self.rate > 0):
            return inputs
        batch, rest = tf.shape(inputs)[:1], tf.shape(inputs)[1:]
        if self.whole_samples:
            rest = tf.ones_like(rest)
        replicas, replica = _replicas()
        draws = tf.random.stateless_uniform(tf.concat([batch * replicas, rest], 0), self.seed_generator.next())
        kept = draws[replica * batch[0] : (replica + 1) * batch[0]] >= self.rate
        return inputs * tf.cast(tf.cast(kept, tf.float32) / (1.0 - self.rate), inputs.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Arguments that rebuild the layer."""
        own = {"rate": self.rate, "seed": self.seed, "whole_samples": self.whole_samples}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(PACKAGE)
class PointwiseConv2D(keras.layers.Conv2D):  # type: ignore[misc]
    """A 1x1 convolution of stride 1 that learns as the matrix product it is.

    On CPU the gradient of TensorFlow's convolution is up to 35 times slower where few pixels are left: three quarters
    of a training step of MobileNet on 32 px images. In inference, and on GPU, it is a plain convolution.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        """[B, H, W, C] -> [B, H, W, filters]."""
        if not (training and self.trainable) or tf.config.list_physical_devices("GPU"):
            return super().call(inputs)
        # Not [0, 0]: the gradient of a slice is a second, zero-filled kernel.
        kernel = tf.reshape(self.kernel, [-1, self.filters])
        flat = tf.matmul(tf.reshape(inputs, [-1, inputs.shape[-1]]), kernel)
        outputs = tf.reshape(flat, tf.concat([tf.shape(inputs)[:-1], [self.filters]], 0))
        outputs.set_shape([*inputs.shape[:-1], self.filters])
        if self.use_bias:
            outputs = outputs + tf.convert_to_tensor(self.bias)
        return outputs if self.activation is None else self.activation(outputs)


@keras.saving.register_keras_serializable(PACKAGE)
class DepthwiseConv2D(keras.layers.DepthwiseConv2D):  # type: ignore[misc]
    """Keras' depthwise convolution, quick to learn in bfloat16 on CPU too; without bias, activation or dilation."""

    def __init__(self, kernel_size: int, strides: int = 1, padding: str = "valid", **kwargs: Any) -> None:
        super().__init__(kernel_size, strides, padding, **kwargs)
        if self.use_bias or self.activation != keras.activations.linear or set(self.dilation_rate) != {1}:
            raise ValueError("DepthwiseConv2D has neither bias nor activation nor dilation")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """[B, H, W, C] -> [B, H', W', C]."""
        return depthwise_conv2d(inputs, tf.convert_to_tensor(self.kernel), self.strides, self.padding.upper())


def multiple_of_8(count: float) -> int:
    """``count`` channels rounded to a multiple of 8, at least 8 and never more than 10% below."""
    rounded = max(8, int(count + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * count else rounded


@dataclass(frozen=True)
class LayerFactory:
    """Makes the layers of one network: initial values follow from ``seed`` and each layer's name alone."""

    seed: int
    batch_norm_momentum: float = 0.99
    batch_norm_epsilon: float = 1e-3
    kernel_std: float | None = None
    """Standard deviation of normal kernels; None: as ``kernel_start`` says."""
    kernel_start: KernelStart = "fan_out"
    stochastic_depth: float = STOCHASTIC_DEPTH
    """How often the last block of a network drops out of a training step; earlier ones do so less, in proportion."""

    def kernel_initializer(self, name: str) -> keras.Initializer:
        """The start of the kernel of layer ``name``."""
        seed = seed_for(self.seed, name)
        if self.kernel_std is not None:
            return keras.initializers.RandomNormal(stddev=self.kernel_std, seed=seed)
        if self.kernel_start == "glorot":
            return keras.initializers.GlorotUniform(seed=seed)
        return keras.initializers.VarianceScaling(2.0, "fan_out", "truncated_normal", seed=seed)

    def conv(
        self,
        filters: int,
        size: int,
        name: str,
        strides: int = 1,
        bias: bool = False,
        padding: str = "same",
        **kwargs: Any,
    ) -> Any:
        """A convolution; 'same' is for stride 2 the official graphs' ``correct_pad``, at every size."""
        kernel = self.kernel_initializer(name)
        layer = PointwiseConv2D if size == strides == 1 else keras.layers.Conv2D
        return layer(filters, size, strides, padding, use_bias=bias, kernel_initializer=kernel, name=name, **kwargs)

    def depthwise(self, size: int, name: str, strides: int = 1, padding: str = "same") -> Any:
        """A depthwise convolution without bias, padded like ``conv``."""
        kernel = self.kernel_initializer(name)
        return DepthwiseConv2D(size, strides, padding, use_bias=False, depthwise_initializer=kernel, name=name)

    def predictions(self, classes: int, probabilities: bool) -> Any:
        """The classification layer: [B, C] -> probabilities [B, classes], or logits, in float32."""
        return keras.layers.Dense(
            classes,
            activation="softmax" if probabilities else None,
            kernel_initializer=self.predictions_initializer("predictions"),
            dtype=FLOAT32,
            name="predictions",
        )

    def predictions_initializer(self, name: str) -> keras.Initializer:
        """The start of the kernel of a classification layer; fan_out alone would be far too large for few classes."""
        return keras.initializers.GlorotUniform(seed=seed_for(self.seed, name))

    def norm(self, name: str) -> FusedBatchNormalization:
        """Batch normalization with the network's momentum and epsilon."""
        return FusedBatchNormalization(self.batch_norm_momentum, self.batch_norm_epsilon, name=name)

    def dropout(self, rate: float, name: str, whole_samples: bool = False) -> SeededDropout:
        """Dropout, or with ``whole_samples`` stochastic depth."""
        return SeededDropout(rate, seed_for(self.seed, name), whole_samples, name=name)

    def relu6(self, name: str) -> Any:
        """ReLU that ends at 6."""
        return keras.layers.ReLU(6.0, name=name)

    def leaky_relu(self, name: str) -> Any:
        """Leaky ReLU with YOLO's slope of 0.1."""
        return keras.layers.LeakyReLU(LEAKY_SLOPE, name=name)
