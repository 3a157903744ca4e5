"""From a PyTorch module to ONNX. Loads torch."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence

import onnx
import torch
from torch import Tensor, nn

from tidemill.bundle.graph import OPSET
from tidemill.core.errors import MissingExtraError, TrialError


def to_onnx(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    free: Mapping[str, Sequence[int]],
    *,
    noun: str = "net",
    extra: str = "deep",
) -> onnx.ModelProto:
    """Export a module whose answers are one tensor, ``answers``.

    Parameters
    ----------
    module : nn.Module
        In evaluation mode.
    inputs : mapping of str to Tensor
        An example of every argument. Of an axis of one the exporter would think that there is never another.
    free : mapping of str to sequence of int
        Axes of each argument that may have any length.
    noun : str
        What it is, for messages.
    extra : str
        What brings the exporter.

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
        raise MissingExtraError.of("onnxscript", "to export deep models", extra=extra)
    twin = copy.deepcopy(module).cpu()
    twin.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # its types forget it
    axes = {name: dict.fromkeys(free[name], torch.export.Dim.DYNAMIC) for name in inputs}
    with quiet():
        try:
            program = torch.onnx.export(
                twin,
                (),
                kwargs=dict(inputs),
                input_names=list(inputs),
                output_names=["answers"],
                dynamic_shapes=axes,
                opset_version=OPSET,
                dynamo=True,
                external_data=False,
                optimize=True,
                verbose=False,
            )
        except Exception as error:  # its tracer and its passes raise whatever they stumble over: no kind is left out
            line = next((s for s in str(error).splitlines() if s.strip()), type(error).__name__)
            raise TrialError(f"PyTorch can't export the {noun} to ONNX: {line[:300]}") from error
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
