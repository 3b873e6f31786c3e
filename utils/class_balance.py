"""Photos of rare classes more often: repeat-factor sampling (LVIS, arXiv:1908.03195, appendix B.2)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utils.types import FloatArray, IntArray


def repeat_factors(classes: Sequence[IntArray], threshold: float) -> FloatArray:
    """How often each photo is to be seen for once of a photo of common classes: [N], 1 or more.

    The factor of a class is max(1, sqrt(threshold / f)), f being the share of photos with it; that of a photo is the
    largest of its classes', 1 for a photo without objects.

    Args:
        classes: for each photo the classes of its objects, [objects] each.
        threshold: share of photos from which on a class is not rare; with 0 none is.
    """
    if not threshold:
        return np.ones(len(classes))
    present = [np.unique(ids) for ids in classes]
    counts = np.bincount(np.concatenate([np.zeros(0, np.int64), *present]))
    shares = np.maximum(counts, 1) / len(classes)
    by_class = np.maximum(1.0, np.sqrt(threshold / shares))
    return np.array([by_class[ids].max(initial=1.0) for ids in present])


def repeated(factors: FloatArray, rng: np.random.Generator) -> IntArray:
    """Each index as often as its factor says, rounded up or down by chance so that the mean is the factor. [M], M >= N.

    The k-th repetition of index i of N is i + k * N, so that it can be told from the others; k = 0 comes first.
    """
    whole = np.floor(factors)
    times = whole + (rng.random(len(factors)) < factors - whole)
    rounds = [np.flatnonzero(times > k) + k * len(factors) for k in range(int(times.max(initial=0)))]
    return np.concatenate([np.zeros(0, np.int64), *rounds])
