"""The graph says what the recipe says."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.bundle.assemble import assemble, input_names
from tidemill.bundle.latency import session
from tidemill.bundle.parity import compare, feed_of
from tidemill.bundle.parts import Member, Recipe, utility_form
from tidemill.core.calibration import Calibration
from tidemill.core.decision import Decision
from tidemill.core.errors import InternalError
from tidemill.core.schema import Column, Columns, Schema, SemanticType
from tidemill.testing.parts import LinearPart, MeanStack, PlainEncoder, small_columns, small_recipe, small_task

KINDS = ("binary", "multiclass", "regression")
DECISIONS = {
    "argmax": Decision(),
    "factors": Decision("offsets", offsets=(0.2, 1.7, 0.6)),
    "cost": Decision.by_cost([[0, 1, 9], [500, 0, 3], [2, 2, 0]]),
}


def run(recipe: Recipe, columns: Columns) -> dict[str, np.ndarray]:
    model = assemble(recipe)
    onnx.checker.check_model(model, full_check=True)
    started = session(model.SerializeToString())
    outputs = started.run(None, feed_of(input_names(recipe.schema), columns))
    return dict(zip([o.name for o in started.get_outputs()], outputs, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_are_columns_and_outputs_are_answers(kind: str) -> None:
    recipe = small_recipe(kind)
    model = assemble(recipe)
    assert [i.name for i in model.graph.input] == ["size", "colour", "weight"]
    for value in [*model.graph.input, *model.graph.output]:
        assert value.type.tensor_type.shape.dim[0].dim_param == "N"
    got = run(recipe, small_columns(5))
    if kind == "regression":
        assert got["prediction"].shape == (5,)
        assert got["prediction"].dtype == np.float32
    else:
        assert got["label"].shape == (5,)
        assert set(got["label"]) <= set(recipe.task.classes)
        assert got["probabilities"].shape == (5, recipe.task.n_classes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stack", [None, MeanStack()], ids=["mean", "stack"])
def test_the_graph_answers_as_the_parts_do(kind: str, stack: MeanStack | None) -> None:
    recipe = small_recipe(kind, stack=stack)
    report = compare(assemble(recipe).SerializeToString(), recipe, {"train": small_columns(5000)})
    assert report.ok, report.first
    assert report.rows == 5000


@pytest.mark.parametrize("name", DECISIONS)
@pytest.mark.parametrize("temperature", [None, 1.0, 0.4, 3.0])
def test_calibration_and_decision_are_inside(name: str, temperature: float | None) -> None:
    calibration = None if temperature is None else Calibration(temperature)
    recipe = small_recipe("multiclass", decision=DECISIONS[name], calibration=calibration)
    columns = small_columns(3000)
    report = compare(assemble(recipe).SerializeToString(), recipe, {"train": columns})
    assert report.ok, report.first
    answers = recipe.predict(columns)
    assert (answers.codes == recipe.decision.apply(answers.scores)).mean() > 0.9999  # but for ties within the margin


@settings(max_examples=60)
@given(
    p=st.lists(st.floats(0.001, 1), min_size=3, max_size=3),
    factors=st.lists(st.floats(0.05, 5), min_size=3, max_size=3),
    cost=st.lists(st.floats(0, 1000), min_size=9, max_size=9),
)
def test_a_decision_is_a_matrix(p: list[float], factors: list[float], cost: list[float]) -> None:
    probabilities = np.array([p]) / sum(p)
    for decision in (
        Decision(),
        Decision("offsets", offsets=tuple(factors)),
        Decision.by_cost(np.array(cost).reshape(3, 3)),
    ):
        utilities = (probabilities @ utility_form(decision, 3))[0]
        assert utilities[decision.apply(probabilities)[0]] >= utilities.max() - 1e-12


def test_equal_probabilities_give_the_first_class_in_both() -> None:
    task = small_task("multiclass")
    schema = Schema((Column("x", SemanticType.NUMBER),))
    # Three parts whose mean is 1/3 for each class, but for the last bit of a float32.
    parts = [
        LinearPart(np.zeros((1, 3)), np.log([a, b, c]), probabilities=True)
        for a, b, c in ((0.2, 0.3, 0.5), (0.5, 0.2, 0.3), (0.3, 0.5, 0.2))
    ]
    recipe = Recipe(task, schema, PlainEncoder(schema), (Member(1.0, parts, "tie"),))
    columns: Columns = {"x": np.zeros(50)}
    assert set(recipe.predict(columns).codes.tolist()) == {0}
    assert set(run(recipe, columns)["label"]) == {task.classes[0]}


def test_few_nodes_join_many_members() -> None:
    small = small_recipe("binary")
    part = small.members[0].parts[0]
    members = [Member(w / 55, [part], f"m{w}") for w in range(1, 11)]
    model = assemble(replace(small, members=members))
    joining = [n.op_type for n in model.graph.node if n.op_type not in ("Gemm", "Softmax")]
    assert len(joining) <= 16, joining


def test_names_that_onnx_has_no_room_for_are_changed() -> None:
    columns = [
        Column(n, SemanticType.NUMBER) for n in ("label", "probabilities", "prediction", "input_label", "", "é ß")
    ]
    names = input_names(Schema(tuple(columns)))
    assert len(set(names.values())) == len(columns)
    assert names["é ß"] == "é ß"
    assert names["input_label"] == "input_label"
    assert not set(names.values()) & {"", "label", "probabilities", "prediction"}


@pytest.mark.parametrize("name", ["label", "c_1", "matmul_3", "a b\tc", "日本", "x" * 300])
def test_any_column_name_can_be_predicted(name: str) -> None:
    schema = Schema((Column(name, SemanticType.NUMBER), Column("t", SemanticType.TARGET)))
    part = LinearPart([[1.0, -1.0]], [0.0, 0.0], probabilities=True)
    recipe = Recipe(small_task(target="t"), schema, PlainEncoder(schema), (Member(1.0, [part], "m"),))
    assert run(recipe, {name: np.array([1.0, -1.0])})["label"].tolist() == ["no", "yes"]


def test_the_model_tells_its_task_and_columns() -> None:
    recipe = small_recipe("binary")
    told = {p.key: json.loads(p.value) for p in assemble(recipe).metadata_props}
    assert told["tidemill.task"]["classes"] == ["no", "yes"]
    assert told["tidemill.inputs"][0] == {"column": "size", "input": "size", "type": "number", "unit": "cm"}


def test_the_same_recipe_gives_the_same_bytes() -> None:
    assert assemble(small_recipe()).SerializeToString() == assemble(small_recipe()).SerializeToString()


def test_weights_must_sum_to_one() -> None:
    with pytest.raises(InternalError, match="sum to 1"):
        replace(small_recipe(), members=[Member(0.5, small_recipe().members[0].parts, "half")])
    with pytest.raises(InternalError, match="needs a member"):
        replace(small_recipe(), members=[])
