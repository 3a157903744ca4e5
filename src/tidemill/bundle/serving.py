"""Files that serving systems want beside the graph: Triton's ``config.pbtxt`` and MLflow's ``MLmodel``."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from numpy.typing import NDArray

from tidemill.bundle.assemble import CONFIDENCE, LABEL, PREDICTION, PROBABILITIES, input_names
from tidemill.bundle.programs import programs_of
from tidemill.bundle.runner.beams import FRAMES, NETS
from tidemill.bundle.spec import BundleSpec
from tidemill.core.schema import EMBEDDED, Column, Schema, SemanticType
from tidemill.core.task import TaskKind

REQUIREMENTS = ("onnxruntime>=1.20,<2", "numpy>=1.26,<3")
"""What `run.py` needs; the graph itself runs since onnxruntime 1.18."""
IMAGE_REQUIREMENTS = (*REQUIREMENTS, "pillow>=10")
"""The same for images; arrays of pixels in a `.npy` file do without Pillow."""
TEXT_REQUIREMENTS = (*REQUIREMENTS, "tokenizers>=0.20,<1")
"""The same for texts; models that count pieces of text alone do without tokenizers."""
_KINDS = {"int64": "TYPE_INT64", "float32": "TYPE_FP32"}


def requirements(schema: Schema) -> tuple[str, ...]:
    """What the `run.py` of a bundle of such inputs needs."""
    if schema.has_texts:
        return TEXT_REQUIREMENTS
    if schema.embedded:
        kinds = {column.type for column in schema.embedded}
        texts = TEXT_REQUIREMENTS[2:] if SemanticType.TEXT in kinds else ()
        return (*REQUIREMENTS, *texts, *(IMAGE_REQUIREMENTS[2:] if SemanticType.IMAGE in kinds else ()))
    return IMAGE_REQUIREMENTS if schema.has_images else REQUIREMENTS


def triton_config(spec: BundleSpec, *, max_batch: int = 4096, tensors: Mapping[str, NDArray[Any]] | None = None) -> str:
    """Model configuration for NVIDIA Triton; the model is called like the folder that it lies in.

    A graph whose inputs are not the columns themselves is described by ``tensors``, an example of each input.
    """
    names = input_names(spec.schema)
    if tensors is None or spec.schema.embedded:
        inputs = [_input(names[c.name], c) for c in spec.schema.features]
    else:
        inputs = [_tensor(name, _KINDS[str(v.dtype)], "[ -1 ]") for name, v in tensors.items()]
    # An output of shape [N] has nothing left when the batch is taken off; Triton writes that as a reshape.
    scalar = "[ 1 ]\n    reshape: { shape: [ ] }"
    if spec.task.kind.has_labels:
        outputs = [
            _tensor(LABEL, "TYPE_STRING", scalar),
            _tensor(PROBABILITIES, "TYPE_FP32", f"[ {spec.task.n_classes} ]"),
        ]
    elif spec.task.kind is TaskKind.RECOGNITION:
        outputs = [_tensor(PREDICTION, "TYPE_STRING", scalar), _tensor(CONFIDENCE, "TYPE_FP32", scalar)]
        if spec.decode:
            nets = f"{spec.decode[NETS]}, " if NETS in spec.decode else ""
            outputs.append(_tensor(FRAMES, "TYPE_FP32", f"[ {nets}-1, {len(spec.decode['alphabet']) + 1} ]"))
    else:
        outputs = [_tensor(PREDICTION, "TYPE_FP32", scalar)]
    return (
        'backend: "onnxruntime"\n'
        f"max_batch_size: {max_batch}\n"
        f"input [\n{_join(inputs)}\n]\n"
        f"output [\n{_join(outputs)}\n]\n"
        f"dynamic_batching {{ preferred_batch_size: [ {min(max_batch, int(spec.performance['best_batch']))} ] }}\n"
        "instance_group [ { kind: KIND_CPU } ]\n"
    )


def _input(name: str, column: Column) -> str:
    if column.type is SemanticType.IMAGE:
        return _tensor(name, "TYPE_UINT8", "[ -1, -1, 3 ]")
    if column.unit == EMBEDDED and column.type is SemanticType.TEXT:
        return _tensor(name, "TYPE_INT64", "[ -1 ]")
    return _tensor(name, "TYPE_STRING" if column.type.is_string else "TYPE_FP64", "[ 1 ]")


def _tensor(name: str, kind: str, dims: str) -> str:
    quoted = json.dumps(name, ensure_ascii=False)
    return f"  {{\n    name: {quoted}\n    data_type: {kind}\n    dims: {dims}\n  }}"


def _join(items: list[str]) -> str:
    return ",\n".join(items)


def mlflow_files(spec: BundleSpec, model_uuid: str) -> dict[str, str]:
    """Files that make the folder of the graph an MLflow model, by their path in it.

    The ``onnx`` flavour gives the bare graph. ``pyfunc`` goes through a small loader of our own, because MLflow's
    feeds columns without their second axis and cannot return a table of labels and probabilities. There is no
    signature: the loader takes numbers, text, dates and missing values in any type, and MLflow would refuse some.
    A graph that takes images or tokens has the ``onnx`` flavour alone: a data frame holds none.
    """
    python = platform.python_version()
    tables = not (spec.schema.has_images or spec.schema.has_texts or spec.schema.embedded)
    packages = [*REQUIREMENTS, *(["pandas>=2"] if tables else [])]
    bare = {"data": "model.onnx", "onnx_version": version("onnx"), "providers": ["CPUExecutionProvider"]}
    loader = {
        "loader_module": "tidemill_pyfunc",
        "data": "model.onnx",
        "code": "code",
        "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
        "python_version": python,
    }
    # JSON is YAML, and needs no package to write.
    model = {
        "artifact_path": "model",
        "flavors": {"onnx": {**bare, "code": "code"}, "python_function": loader} if tables else {"onnx": bare},
        "model_uuid": model_uuid,
        "utc_time_created": spec.info.created_at.removesuffix("Z").removesuffix("+00:00").replace("T", " "),
        "metadata": {"tidemill": spec.versions.get("tidemill", ""), "name": spec.info.name},
    }
    pip = [*packages, "mlflow-skinny"]
    conda = {"name": "tidemill", "channels": ["conda-forge"], "dependencies": [f"python={python}", "pip", {"pip": pip}]}
    env = {"python": python, "build_dependencies": ["pip"], "dependencies": ["-r requirements.txt"]}
    code = {name.removeprefix("1/"): text for name, text in programs_of(spec.schema).items() if name.startswith("1/")}
    return {
        "MLmodel": json.dumps(model, indent=1) + "\n",
        "conda.yaml": json.dumps(conda, indent=1) + "\n",
        "python_env.yaml": json.dumps(env, indent=1) + "\n",
        "requirements.txt": "".join(f"{p}\n" for p in packages),
        **code,
    }
