"""From a PyTorch module to ONNX."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator

import onnx
import torch
from torch import nn

from tidemill.bundle.graph import OPSET
from tidemill.core.errors import MissingExtraError, TrialError


def to_onnx(module: nn.Module, shape: tuple[int, ...]) -> onnx.ModelProto:
    """Export a module whose only argument ``images`` has any number of rows.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode.
    shape : tuple of int
        Shape of one image: (channels, height, width).

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
        raise MissingExtraError.of("onnxscript", "to export deep models", extra="deep")
    twin = copy.deepcopy(module).cpu()
    twin.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # its types forget it
    example = torch.zeros(2, *shape)  # of one row the exporter would think that there is never another
    with quiet():
        try:
            program = torch.onnx.export(
                twin,
                (),
                kwargs={"images": example},
                input_names=["images"],
                output_names=["answers"],
                dynamic_shapes={"images": {0: torch.export.Dim("rows")}},
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                optimize=True,
                verbose=False,
            )
        except Exception as error:
            line = next((s for s in str(error).splitlines() if s.strip()), type(error).__name__)
            raise TrialError(f"PyTorch can't export the net to ONNX: {line[:300]}") from error
    if program is None:
        raise TrialError("PyTorch's exporter gave nothing.")
    model: onnx.ModelProto = program.model_proto
    return model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporter reports its progress, and warns of packages that are of no concern here."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
