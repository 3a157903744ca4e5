"""Lets MLflow's ``pyfunc.load_model`` predict data frames with the model beside this file.

Needs onnxruntime, numpy and pandas. Columns are found by name; cells are read by the same rules as in a CSV file, so
that numbers, text, true and false, dates and missing values may come in any type that a data frame has.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd

# <inlined>
from tidemill.bundle.runner.answers import answer_header
from tidemill.bundle.runner.ordered import cores, in_order
from tidemill.data.textforms import physical

# </inlined>

CHUNK = 1024


class Model:
    """What MLflow calls: ``predict`` from a data frame to a data frame.

    Parameters
    ----------
    path : str
        The ONNX file.
    """

    def __init__(self, path: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # several calls run at the same time instead
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        about = self.session.get_modelmeta().custom_metadata_map
        self.inputs: list[dict[str, Any]] = json.loads(about["tidemill.inputs"])
        self.classes: list[str] = json.loads(about["tidemill.task"])["classes"]

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Answer with ``prediction``, then ``proba_<label>`` for each class; the index is kept."""
        frame = data if isinstance(data, pd.DataFrame) else pd.DataFrame(data)
        absent = [each["column"] for each in self.inputs if each["column"] not in frame.columns]
        if absent:
            raise ValueError(f"Columns are missing: {', '.join(map(repr, absent[:20]))}.")
        feed = {each["input"]: graph_input(frame[each["column"]], each) for each in self.inputs}
        parts = [{n: v[i : i + CHUNK] for n, v in feed.items()} for i in range(0, max(len(frame), 1), CHUNK)]
        outputs = list(in_order(lambda part: self.session.run(None, part), parts, cores()))
        names = [output.name for output in self.session.get_outputs()]
        answers = {name: np.concatenate([o[i] for o in outputs]) for i, name in enumerate(names)}
        if not self.classes:
            return pd.DataFrame({"prediction": answers["prediction"]}, index=frame.index)
        columns = [answers["label"], *answers["probabilities"].T]
        return pd.DataFrame(dict(zip(answer_header(self.classes), columns, strict=True)), index=frame.index)


def graph_input(values: pd.Series[Any], each: dict[str, Any]) -> Any:
    """Turn one column into a graph input of shape (n, 1)."""
    kind, unit = each["type"], each["unit"]
    if kind == "datetime" and pd.api.types.is_datetime64_any_dtype(values):
        moments = pd.to_datetime(values, utc=True)
        seconds = (moments - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
        return seconds.to_numpy(np.float64).reshape(-1, 1)
    if kind not in ("category", "text") and pd.api.types.is_numeric_dtype(values):
        return values.to_numpy(np.float64, na_value=np.nan).reshape(-1, 1)
    cells = [physical(cell_text(value), kind, unit) for value in values]
    return np.array(cells, dtype=object if kind in ("category", "text") else np.float64).reshape(-1, 1)


def cell_text(value: Any) -> str:
    """Text of one value, as it would stand in a CSV file."""
    if value is None or value is pd.NA or value is pd.NaT or value != value:
        return ""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        return repr(float(value))
    return str(value)


def _load_pyfunc(path: str) -> Model:
    """Open the model; called by MLflow."""
    return Model(path)
