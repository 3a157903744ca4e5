"""What is watched of the answers of a classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = "confidence"
"""Name of the prediction's column that holds the highest probability, or of two classes that of the second."""


def confidence(probabilities: NDArray[Any]) -> NDArray[np.float64]:
    """Highest probability of each row; of two classes the probability of the second.

    Examples
    --------
    >>> confidence(np.array([[0.9, 0.1]])), confidence(np.array([[0.2, 0.3, 0.5]]))
    (array([0.1]), array([0.5]))
    """
    p = np.asarray(probabilities, dtype=np.float64)
    return np.asarray(p[:, 1] if p.shape[1] == 2 else p.max(axis=1))
