"""What every recogniser promises."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason="the families train with torch")
pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it")

from tests.models.recognition.made import READ, data

from tidemill.bundle.graph import GraphBuilder
from tidemill.core import transcripts
from tidemill.core.errors import DataError, OptionError, TrialTimeoutError
from tidemill.core.metrics import get_metric
from tidemill.core.pack import pack, unpack
from tidemill.core.trial import Config
from tidemill.models.recognition import pool
from tidemill.models.recognition._base import LineData, LineProfile, steps_needed
from tidemill.models.recognition.learning import CtcLoss, FewestErrors
from tidemill.models.training.budget import TrainBudget
from tidemill.models.vision.weights import origin_of, read_safetensors, write_weights

NAMES = ("crnn", "svtr")


def config_of(name: str, profile: LineProfile, epochs: int = 3, **more: object) -> Config:
    default = pool.space(READ, profile, [name]).default()
    return {**default, f"{name}.width": 8, f"{name}.epochs": epochs, f"{name}.augment": 0.5, **more}


@pytest.mark.parametrize("name", NAMES)
def test_it_is_kept_answers_as_its_graph_at_any_width_and_its_cost_is_counted(name: str) -> None:
    profile, train, valid = data(40)
    family = pool.families([name])[name]
    config = config_of(name, profile)
    net = family.fit(config, READ, profile, train, valid, TrainBudget(), 0)
    scores = net.predict(valid.x[valid.rows])
    assert scores.dtype == np.float32
    kept = pool.restore(unpack(pack(net.checkpoint())), READ)
    assert np.array_equal(kept.predict(valid.x[valid.rows]), scores)

    graph = GraphBuilder()
    inlet = graph.input("x", np.float32, ["N", 1, 16, "V"])
    graph.output(kept.emit(graph, inlet), "frames", np.float32, ["N", "T", 5])
    model = graph.model().SerializeToString()
    run = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for rows, width in ((1, 16), (3, 48), (2, 160)):
        lines = np.random.default_rng(width).integers(0, 256, (rows, 16, width)).astype(np.uint8)
        got = run.run(None, {"x": lines[:, None].astype(np.float32)})[0]
        expected = net.frames(list(lines))
        assert got.shape == expected.shape == (rows, width // 4, 5)
        assert np.abs(np.exp(got) - np.exp(expected)).max() <= 1e-5
    assert b"/" + b"site-packages" not in model, "no trace of this machine leaves it"

    counted = family.cost(config, READ, profile)
    assert counted == net.cost == kept.cost
    state = net.checkpoint()["state"]
    assert counted.params == sum(v.size for n, v in state.items() if "running" not in n and v.dtype == np.float32) - 2
    assert counted.flops


@pytest.mark.parametrize("name", NAMES)
def test_a_line_is_read_at_several_heights_which_count_alike(name: str) -> None:
    profile, train, _ = data(40)
    family = pool.families([name])[name]
    several = config_of(name, profile, **{f"{name}.views": 3})
    once = {**several, f"{name}.views": 1}
    net = family.fit(several, READ, profile, train, None, TrainBudget(), 0)
    kept = net.checkpoint()
    alone = pool.restore({**kept, "config": {**kept["config"], f"{name}.views": 1}}, READ)

    line = np.random.default_rng(0).integers(0, 256, (16, 32)).astype(np.uint8)
    up, down = np.concatenate([line[1:], line[-1:]]), np.concatenate([line[:1], line[:-1]])
    logs = np.mean([alone.frames([view])[0] for view in (up, line, down)], axis=0)
    expected = logs - np.logaddexp.reduce(logs, axis=1, keepdims=True)
    assert np.abs(net.frames([line])[0] - expected).max() <= 1e-4
    assert np.abs(alone.frames([line])[0] - expected).max() > 1e-3, "the views say nothing else"

    costs = [family.cost(config, READ, profile) for config in (several, once)]
    assert costs[0].flops == 3 * costs[1].flops
    assert costs[0].params == costs[1].params
    without = {key: value for key, value in kept["config"].items() if key != f"{name}.views"}
    old = pool.restore({**kept, "config": without}, READ)
    assert np.array_equal(old.frames([line]), alone.frames([line])), "a net of before reads as it did"


def test_the_same_seed_gives_the_same_net() -> None:
    profile, train, valid = data(40)
    family = pool.families(["crnn"])["crnn"]
    nets = [family.fit(config_of("crnn", profile), READ, profile, train, valid, TrainBudget(), 7) for _ in range(2)]
    assert np.array_equal(*(net.frames([valid.x[0]]) for net in nets))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_learns_to_read(name: str) -> None:
    profile, train, valid = data(400)
    budget = TrainBudget()
    config = config_of(name, profile, 40)
    net = pool.families([name])[name].fit(config, READ, profile, train, valid, budget, 0)
    truth, read = valid.y[valid.rows], net.predict(valid.x[valid.rows])
    assert get_metric("cer")(truth, read, task=READ) < 0.1
    assert budget.curve[-1][1] < 0.2 < budget.curve[0][1]


def test_a_training_is_cut_to_its_time_and_says_where_there_is_none() -> None:
    profile, train, valid = data(96)
    family = pool.families(["crnn"])["crnn"]
    config = config_of("crnn", profile, 5_000)
    begun = time.monotonic()
    family.fit(config, READ, profile, train, valid, TrainBudget(deadline=begun + 6.0), 0)
    assert time.monotonic() - begun < 30
    with pytest.raises(TrialTimeoutError, match="An epoch takes"):
        family.fit(config, READ, profile, train, valid, TrainBudget(deadline=time.monotonic()), 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_net_of_another_alphabet_is_a_beginning(name: str, tmp_path: Path) -> None:
    profile, train, _ = data(40)
    family = pool.families([name])[name]
    first = family.fit(config_of(name, profile), READ, profile, train, None, TrainBudget(), 0)
    place = str(write_weights(unpack(pack(first.checkpoint())), tmp_path / "w").parent)
    origin = origin_of(place)
    assert origin is not None
    assert origin.alphabet == "0123"

    other, train, valid = data(40, "2357", weights=(place,))
    config = {**pool.space(READ, other, [name]).default(), f"{name}.epochs": 1, f"{name}.lr": 5e-4}
    assert config[f"{name}.weights"] == place, "weights that are at hand are the default"
    net = family._made(family._laid(config), other)  # type: ignore[attr-defined]
    family._begin_from(net, config, other)  # type: ignore[attr-defined]
    given, state = read_safetensors(Path(place) / "model.safetensors"), net.state_dict()
    kept = [n for n, v in given.items() if not n.startswith("linear.") and v.ndim > 0]
    assert all(np.array_equal(state[f"body.{n}"].numpy(), given[n]) for n in kept), "the body is taken as it is"
    head = state["body.linear.weight"].numpy()
    for character in "23":
        before, after = 1 + "0123".index(character), 1 + "2357".index(character)
        assert np.array_equal(head[after], given["linear.weight"][before]), "what both can write is known"
    assert np.array_equal(head[0], given["linear.weight"][0])
    assert not np.isin(head[1 + "2357".index("7"), 0], given["linear.weight"][:, 0])
    fitted = family.fit(config, READ, other, train, valid, TrainBudget(), 0)
    assert fitted.alphabet == "2357"
    assert fitted.config[f"{name}.width"] == 8, "weights bring their shapes"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", NAMES)
def test_a_net_learns_as_quickly_from_weights_as_from_the_beginning(name: str) -> None:
    profile, _, _ = data(40)
    family, config = pool.families([name])[name], config_of(name, profile)
    begun = family.recipe({**config, f"{name}.weights": "others"}, profile)  # type: ignore[attr-defined]
    assert begun == family.recipe(config, profile)  # type: ignore[attr-defined]


def test_weights_that_don_t_fit_are_refused_by_name(tmp_path: Path) -> None:
    profile, train, _ = data(40)
    family = pool.families(["crnn"])["crnn"]
    first = family.fit(config_of("crnn", profile), READ, profile, train, None, TrainBudget(), 0)
    place = str(write_weights(unpack(pack(first.checkpoint())), tmp_path / "w").parent)
    with pytest.raises(OptionError, match="family 'crnn', which is not searched here"):
        pool.space(READ, data(40, weights=(place,))[0], ["svtr"])
    taller = LineProfile(40, 48, 64.0, "0123", 128.0, 64.0, (place,))
    lines = np.empty(40, dtype=object)
    for i in range(40):
        lines[i] = np.zeros((48, 64), np.uint8)
    config = pool.space(READ, taller, ["crnn"]).default()
    with pytest.raises(DataError, match=r"'entrance\.flat\.weight' is"):
        family.fit(config, READ, taller, LineData(lines, train.y, train.rows), None, TrainBudget(), 0)


def test_a_text_that_is_longer_than_its_line_teaches_nothing_and_breaks_nothing() -> None:
    outputs = torch.zeros(2, 3, 3, requires_grad=True)
    targets = torch.tensor([[3, 1, 2, -1], [3, 1, 1, 1]])
    assert steps_needed(transcripts.to_codes(["ab", "aaa"])).tolist() == [2, 5]
    losses = CtcLoss()(outputs, targets)
    assert losses.shape == (2,)
    assert float(losses[1].detach()) == 0.0
    losses.sum().backward()
    assert outputs.grad is not None
    assert bool(torch.isfinite(outputs.grad).all())
    assert not outputs.grad[1].any()


def test_the_score_of_a_moment_is_its_character_error_rate() -> None:
    frames = np.full((2, 4, 3), -9.0)
    for row, path in enumerate(([1, 1, 0, 2], [2, 0, 1, 1])):
        frames[row, np.arange(4), path] = 0.0
    frames[1, 2:] = np.nan
    targets = np.array([[4, 1, 2], [2, 2, 1]])
    assert FewestErrors()(frames, targets) == pytest.approx(-1 / 4)
