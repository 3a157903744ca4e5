"""Nets of the transformers library, opened and checked. Loads torch.

Whatever precision weights were saved in, nets compute in fp32 here: so are they trained, exported and kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any

import torch
from torch import nn

from tidemill.core.errors import DataError, TidemillError
from tidemill.models.pretrained.folders import TIMM, is_of_timm
from tidemill.models.pretrained.timm import load_timm

PIXELS, TOKENS = "pixel_values", "input_ids"
"""Names that transformers gives what a net takes."""
_TOLD = {PIXELS: "images", TOKENS: "texts"}
_UNUSED = "pooler."
"""What stands behind the last layer is no feature of ours, and may be missing."""
_PRECISIONS = ("dtype", "torch_dtype")
_GIVEN = "num_classes"
"""What transformers gives to nets of timm; their descriptions may name it beside it, and then it is given twice."""
_MOST_REPLACED, _USUALLY_REPLACED = 0.5, 0.1
"""Share of its statistics that a batch normalisation may replace with those of a batch; what PyTorch does by itself."""
_NAMED = 3
"""Tensors of each kind of misfit that a message names."""


def load_transformers() -> Any:
    """The library, loaded when a net is built: it is an extra, and slow to load."""
    found = import_module("transformers")
    found.logging.set_verbosity_error()  # what it warns of (heads that are not there) is meant here
    found.logging.disable_progress_bar()
    return found


def open_folder(folder: str, takes: str, *, weights: bool, **how: Any) -> tuple[nn.Module, str]:
    """Open a folder as ``save_pretrained`` writes it; gives the net and its description as JSON.

    Parameters
    ----------
    folder : str
        With ``config.json`` and, for ``weights``, ``model.safetensors`` or its parts.
    takes : str
        `PIXELS` or `TOKENS`: what the net has to take.
    weights : bool
        Fill the net; else its numbers are drawn, which is enough to count what it costs.
    **how
        For transformers.

    Raises
    ------
    DataError
        Where transformers can't open it, where it takes something else, where tensors are missing or have other shapes
        than the description says; it names them.
    MissingExtraError
        For a net of timm, where that can't be loaded.
    """
    if is_of_timm(folder):
        load_timm()
    models, info = load_transformers(), {}
    try:
        config = _without_head(models.AutoConfig.from_pretrained(folder, local_files_only=True))
        if weights:
            net, info = models.AutoModel.from_pretrained(
                folder, config=config, local_files_only=True, use_safetensors=True, dtype=torch.float32,
                output_loading_info=True, ignore_mismatched_sizes=True, **how,
            )  # fmt: skip
        else:
            net = models.AutoModel.from_config(config, dtype=torch.float32, **how)
    except (TidemillError, MemoryError):
        raise
    except Exception as error:  # the library and its readers raise whatever they stumble over
        raise _cannot_open(folder, error) from error
    _check_input(net, takes, folder, str(config.model_type))
    _check_tensors(info, folder)
    return _remembering(net).eval(), _without_precision(config.to_json_string(use_diff=False))


def rebuild(description: str, **how: Any) -> nn.Module:
    """Make a net from its description; its numbers are drawn.

    Raises
    ------
    MissingExtraError
        For a net of timm, where that can't be loaded.
    """
    models = load_transformers()
    values = {name: value for name, value in json.loads(description).items() if name not in _PRECISIONS}
    if values["model_type"] == TIMM:
        load_timm()
    config = models.AutoConfig.for_model(values.pop("model_type"), **values)
    net: nn.Module = models.AutoModel.from_config(config, dtype=torch.float32, **how)
    return _remembering(net).eval()


def _remembering(net: nn.Module) -> nn.Module:
    """Let batch normalisation remember more than its last batch while a net is tuned.

    MobileNets of transformers give PyTorch the share that TensorFlow keeps (0.997) as the one that is replaced: what a
    tuned net answered with was what its last batch looked like.
    """
    for part in net.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and (part.momentum or 0.0) > _MOST_REPLACED:
            part.momentum = _USUALLY_REPLACED
    return net


def _without_head(config: Any) -> Any:
    """A description of timm without the classes of the head that we leave out."""
    if config.model_type == TIMM and config.model_args:
        config.model_args = {name: value for name, value in config.model_args.items() if name != _GIVEN}
    return config


def _cannot_open(folder: str, error: Exception) -> DataError:
    line = next((s.strip() for s in str(error).splitlines() if s.strip()), repr(error))
    return DataError(
        f"The weights can't be opened: {line[:300]}",
        where=folder,
        hint="Give a folder as `save_pretrained` of transformers writes it: config.json and model.safetensors.",
    )


def _check_input(net: nn.Module, takes: str, folder: str, kind: str) -> None:
    """Refuse what was made for something else."""
    given = str(getattr(net, "main_input_name", ""))
    if given != takes:
        told = _TOLD.get(given, given or "something else")
        raise DataError(
            f"config.json describes a net of the kind {kind!r}, which takes {told}, not {_TOLD[takes]}.", where=folder
        )


def _check_tensors(info: Mapping[str, Any], folder: str) -> None:
    """Refuse weights of another net, of which transformers would draw what is missing."""
    wrong = [
        f"{name!r} is {tuple(given)}, not {tuple(wanted)}"
        for name, given, wanted in sorted(info.get("mismatched_keys", ()))
        if not name.startswith(_UNUSED)
    ]
    missing = [f"{name!r} is missing" for name in _used(info.get("missing_keys", ()))]
    if not wrong and not missing:
        return
    shown = [*wrong[:_NAMED], *missing[:_NAMED]]
    left = len(wrong) + len(missing) - len(shown)
    named = "; ".join(shown) + (f" and {left} more" if left > 0 else "")
    raise DataError(
        f"The weights don't fit the net of config.json: {named}.",
        where=folder,
        hint="Give the weights together with the config.json that they were saved with.",
    )


def _used(names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith(_UNUSED))


def _without_precision(description: str) -> str:
    """A description says what a net is, not in which precision somebody saved it."""
    values = json.loads(description)
    return json.dumps({name: value for name, value in values.items() if name not in _PRECISIONS}, indent=2)
