"""Whether a worker answers the golden rows of a bundle as they were proven, within what vector units may round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# As in `tidemill.bundle.verify`, whose module brings the whole of `onnx` along; a test holds the numbers together.
SLACK = 4.0
MAX_DP = 1e-5
RTOL = 1e-5


def differences(wanted: Mapping[str, NDArray[Any]], got: Mapping[str, NDArray[Any]]) -> list[str]:
    """Sentences about what differs; none where the golden rows pass.

    Parameters
    ----------
    wanted, got : mapping
        Outputs of the graph by name: as kept in the bundle, and as they came.
    """
    if set(wanted) != set(got):
        return ["The graph gives other outputs than the golden rows have."]
    out: list[str] = []
    for name, want in wanted.items():
        have = got[name]
        if want.shape != have.shape:
            out.append(f"The output {name!r} has the shape {have.shape}, but the golden rows have {want.shape}.")
        elif want.dtype.kind in "OUS":
            if np.any(want != have):
                out.append(f"The graph gives another {name!r} than it did when it was written.")
        elif not _near(name, want.astype(np.float64), have.astype(np.float64)):
            out.append(f"The graph gives other {name} than it did when it was written.")
    return out


def _near(name: str, want: NDArray[np.float64], have: NDArray[np.float64]) -> bool:
    if name == "prediction":
        scale = np.maximum(np.abs(want), 0.1 * np.ptp(want))
        return bool(np.all(np.abs(want - have) <= SLACK * RTOL * scale))
    return bool(np.all(np.abs(want - have) <= SLACK * MAX_DP))
