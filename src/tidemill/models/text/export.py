"""From a PyTorch module that reads tokens to ONNX."""

from __future__ import annotations

import copy

import onnx
import torch
from torch import nn

from tidemill.bundle.graph import OPSET
from tidemill.core.errors import MissingExtraError, TrialError
from tidemill.models.vision.export import quiet


def to_onnx(module: nn.Module, length: int) -> onnx.ModelProto:
    """Export a module whose only argument ``tokens`` has any number of rows, up to ``length`` tokens each.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode.
    length : int
        Most tokens of a text.

    Returns
    -------
    onnx.ModelProto
        Standard operators of the operator set that bundles use, all numbers inside.

    Raises
    ------
    TrialError
        Where PyTorch can't export it.
    MissingExtraError
        Where ``onnxscript`` is not installed.
    """
    from importlib.util import find_spec

    if find_spec("onnxscript") is None:
        raise MissingExtraError.of("onnxscript", "to export deep models", extra="text")
    twin = copy.deepcopy(module).cpu()
    example = torch.zeros(
        2, min(8, length), dtype=torch.int64
    )  # of one the exporter would think that there is no other
    example[1, -2:] = -1
    with quiet():
        try:
            program = torch.onnx.export(
                twin,
                (),
                kwargs={"tokens": example},
                input_names=["tokens"],
                output_names=["answers"],
                dynamic_shapes={"tokens": {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}},
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                optimize=True,
                verbose=False,
            )
        except Exception as error:
            line = next((s for s in str(error).splitlines() if s.strip()), type(error).__name__)
            raise TrialError(f"PyTorch can't export the encoder to ONNX: {line[:300]}") from error
    if program is None:
        raise TrialError("PyTorch's exporter gave nothing.")
    model: onnx.ModelProto = program.model_proto
    return model
