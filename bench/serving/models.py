"""The models of the comparison, made from fixed seeds: boosted trees, a network for pictures, and a slow one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FEATURES = 30
CLASSES = 3
IMAGE = (3, 32, 32)


def lightgbm(path: Path) -> Path:
    """Boosted trees: 3 classes × 50 trees, 30 numbers, one input ``[N, 30]`` of float32."""
    import lightgbm as lgb

    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, FEATURES)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0.3).astype(int) + (x[:, 3] > 1)
    settings = {"objective": "multiclass", "num_class": CLASSES, "num_leaves": 31, "verbosity": -1, "num_threads": 1}
    booster = lgb.train(settings, lgb.Dataset(x, y), num_boost_round=50)
    node = helper.make_node(
        "TreeEnsembleClassifier", ["input"], ["label", "probabilities"], domain="ai.onnx.ml",
        post_transform="SOFTMAX", classlabels_int64s=list(range(CLASSES)), **_ensemble(booster.dump_model()),
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "trees",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", FEATURES])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", CLASSES]),
        ],
    )  # fmt: skip
    return _save(graph, path)


def _ensemble(dumped: dict[str, Any]) -> dict[str, Any]:
    """Attributes of one ``TreeEnsembleClassifier``, the form that the usual converters write."""
    out: dict[str, list[Any]] = {f"nodes_{k}": [] for k in ("treeids", "nodeids", "featureids", "modes", "values")}
    out |= {f"nodes_{k}": [] for k in ("truenodeids", "falsenodeids")}
    out |= {f"class_{k}": [] for k in ("treeids", "nodeids", "ids", "weights")}
    for number, tree in enumerate(dumped["tree_info"]):
        count = iter(range(1 << 20))

        def walk(node: dict[str, Any], number: int = number, count: Iterator[int] = count) -> int:
            place = next(count)
            leaf = "leaf_value" in node
            row = len(out["nodes_modes"])
            values = (number, place, node.get("split_feature", 0), "LEAF" if leaf else "BRANCH_LEQ",
                      float(np.float32(node.get("threshold", 0.0))), 0, 0)  # fmt: skip
            names = ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids")
            for name, value in zip(names, values, strict=True):
                out[f"nodes_{name}"].append(value)
            if leaf:
                weights = (number, place, number % CLASSES, float(node["leaf_value"]))
                for name, value in zip(("treeids", "nodeids", "ids", "weights"), weights, strict=True):
                    out[f"class_{name}"].append(value)
            else:
                out["nodes_truenodeids"][row] = walk(node["left_child"])
                out["nodes_falsenodeids"][row] = walk(node["right_child"])
            return place

        walk(tree["tree_structure"])
    return out


def network(path: Path) -> Path:
    """Three convolutions and a linear layer on a picture of 3 × 32 × 32."""
    rng = np.random.default_rng(1)
    nodes, weights, value, channels = [], [], "input", IMAGE[0]
    for k, width in enumerate((16, 32, 64)):
        shape = (width, channels, 3, 3)
        weights.append(numpy_helper.from_array(_normal(rng, shape), f"w{k}"))
        nodes.append(helper.make_node("Conv", [value, f"w{k}"], [f"c{k}"], strides=[2, 2], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{k}"], [f"r{k}"]))
        value, channels = f"r{k}", width
    weights.append(numpy_helper.from_array(_normal(rng, (channels, 10)), "head"))
    nodes += [
        helper.make_node("GlobalAveragePool", [value], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes, "network",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", *IMAGE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 10])],
        weights,
    )  # fmt: skip
    return _save(graph, path)


def slow(path: Path, *, width: int = 512, layers: int = 12) -> Path:
    """A deep chain of matrix products: milliseconds a row, and no gain from larger batches."""
    rng = np.random.default_rng(2)
    nodes, weights, value = [helper.make_node("MatMul", ["input", "first"], ["x"])], [], "x"
    weights.append(numpy_helper.from_array(_normal(rng, (8, width)), "first"))
    weights.append(numpy_helper.from_array(_normal(rng, (width, width)), "inner"))
    nodes.append(helper.make_node("Unsqueeze", ["x", "axis"], ["rows"]))
    weights.append(numpy_helper.from_array(np.array([1]), "axis"))
    weights.append(numpy_helper.from_array(np.ones((1, 64, 1), np.float32), "many"))
    nodes.append(helper.make_node("Mul", ["rows", "many"], ["h"]))
    value = "h"
    for k in range(layers):
        nodes.append(helper.make_node("MatMul", [value, "inner"], [f"m{k}"]))
        nodes.append(helper.make_node("Tanh", [f"m{k}"], [f"t{k}"]))
        value = f"t{k}"
    weights.append(numpy_helper.from_array(np.array([1, 2]), "axes"))
    nodes.append(helper.make_node("ReduceMean", [value, "axes"], ["score"], keepdims=0))
    graph = helper.make_graph(
        nodes, "slow",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 8])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N"])],
        weights,
    )  # fmt: skip
    return _save(graph, path)


def _normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    fan_in = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
    return (rng.normal(size=shape) / np.sqrt(fan_in)).astype(np.float32)


def _save(graph: onnx.GraphProto, path: Path) -> Path:
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("ai.onnx.ml", 3)], ir_version=10
    )
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def bundle(path: Path) -> Path:
    """The boosted trees as a bundle: 30 columns of numbers, 3 classes, with golden rows and the reference for drift."""
    import lightgbm as lgb

    from tidemill.bundle.parts import Member, Recipe
    from tidemill.bundle.spec import BundleInfo
    from tidemill.bundle.write import write_bundle
    from tidemill.core.schema import Column, Schema, SemanticType
    from tidemill.core.task import Task, TaskKind
    from tidemill.models.tabular.families.lightgbm import FittedLightGBM
    from tidemill.testing.parts import PlainEncoder

    rng = np.random.default_rng(0)
    x = rng.normal(size=(8000, FEATURES))
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0.3).astype(int) + (x[:, 3] > 1)
    settings = {"objective": "multiclass", "num_class": CLASSES, "num_leaves": 31, "verbosity": -1, "num_threads": 1}
    booster = lgb.train(settings, lgb.Dataset(x[:4000].astype(np.float32), y[:4000]), num_boost_round=50)
    names = [f"x{k}" for k in range(FEATURES)]
    schema = Schema((*(Column(n, SemanticType.NUMBER) for n in names), Column("y", SemanticType.TARGET)))
    task = Task(TaskKind.MULTICLASS, "y", tuple(str(k) for k in range(CLASSES)))
    part = FittedLightGBM(booster.model_to_string(), task, 50)
    recipe = Recipe(task, schema, PlainEncoder(schema), (Member(1.0, [part], "lightgbm"),))
    train, test = ({n: x[rows, k] for k, n in enumerate(names)} for rows in (slice(0, 4000), slice(4000, 8000)))
    write_bundle(path, recipe, columns_train=train, columns_test=test, y_test=y[4000:], info=BundleInfo(name="trees"))
    return path


def make_all(folder: Path) -> dict[str, Path]:
    """Write those that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    makers = {"lightgbm.onnx": lightgbm, "network.onnx": network, "slow.onnx": slow, "bundle.tm": bundle}
    out = {name.partition(".")[0]: folder / name for name in makers}
    for path in out.values():
        if not path.exists():
            makers[path.name](path)
    return out
