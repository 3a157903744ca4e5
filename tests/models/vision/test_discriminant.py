"""What a net of another study sees is enough for a head that needs few images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

torch = pytest.importorskip("torch", reason="nets are trained with torch")
pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it")

from tests.models.vision.made import CLASSES, VALUES, data
from tests.models.vision.test_begin_from import NAMES, OTHER, profile_with, trained

from tidemill.bundle.graph import GraphBuilder
from tidemill.core.errors import DataError, OptionError
from tidemill.core.pack import pack, unpack
from tidemill.models.training.budget import TrainBudget
from tidemill.models.vision import pool
from tidemill.models.vision._base import ImageProfile
from tidemill.models.vision.augment import Augment
from tidemill.models.vision.families import discriminant
from tidemill.models.vision.families.discriminant import DiscriminantFamily
from tidemill.models.vision.nets import grid
from tidemill.models.vision.nets.grid import Grid
from tidemill.models.vision.weights import write_weights
from tidemill.search.samplers.baseline import fit_into

FAMILY = pool.families(["discriminant"])["discriminant"]


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_is_kept_without_the_weights_and_answers_the_same_as_its_graph(name: str, tmp_path: Path) -> None:
    place = trained(name, tmp_path / "w")
    profile, train, valid = profile_with(place)
    config = pool.space(OTHER, profile, ["discriminant"]).default()
    counted = FAMILY.cost(config, OTHER, profile)
    net = FAMILY.fit(config, OTHER, profile, train, valid, TrainBudget(), 0)
    assert (net.cost.params, net.cost.flops) == (counted.params, counted.flops)
    scores = net.predict(valid.x)
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert (scores[valid.rows].argmax(axis=1) == valid.y[valid.rows]).mean() >= 0.8
    (Path(place) / "model.safetensors").unlink()
    kept = pool.restore(unpack(pack(net.checkpoint())), OTHER)
    assert np.array_equal(kept.predict(valid.x), scores)
    again = pool.restore(unpack(pack(kept.checkpoint())), OTHER)
    assert np.array_equal(again.predict(valid.x), scores)
    graph = GraphBuilder()
    inlet = graph.input("x", np.float32, ["N", *valid.x.shape[1:]])
    graph.output(kept.emit(graph, inlet), "scores", np.float32, ["N", 2])
    run = onnxruntime.InferenceSession(graph.model().SerializeToString(), providers=["CPUExecutionProvider"])
    for rows in (valid.rows, valid.rows[:1]):
        got = run.run(None, {"x": valid.x[rows].astype(np.float32)})[0]
        assert np.abs(got - net.predict(valid.x[rows])).max() <= 1e-5


def test_the_body_is_the_other_studys_to_the_last_bit(tmp_path: Path) -> None:
    from tidemill.models.vision.weights import read_safetensors

    place = trained("quicknet", tmp_path / "w")
    profile, train, valid = profile_with(place)
    config = pool.space(OTHER, profile, ["discriminant"]).default()
    state = FAMILY.fit(config, OTHER, profile, train, valid, TrainBudget(), 0).checkpoint()["state"]
    given = read_safetensors(Path(place) / "model.safetensors")
    body = {n: v for n, v in given.items() if not n.startswith("linear.") and not n.endswith("num_batches_tracked")}
    assert body
    assert all(np.array_equal(state[f"body.inner.{n}"], v) for n, v in body.items())


def test_it_is_there_where_a_studys_net_is_and_classes_are_asked(tmp_path: Path) -> None:
    place = trained("quicknet", tmp_path / "w")
    profile, train, _ = profile_with(place)
    assert FAMILY.supports(OTHER, profile)
    assert not FAMILY.supports(VALUES, profile)
    assert not FAMILY.supports(OTHER, ImageProfile.of(train.x))
    grey, _, _ = profile_with(place, channels=1)
    assert not FAMILY.supports(OTHER, grey)
    with pytest.raises(OptionError, match="trained on images of 3 channels"):
        pool.space(OTHER, grey)
    with pytest.raises(OptionError, match="trained on images of 3 channels"):
        pool.space(OTHER, grey, ["quicknet", "probe"])


def test_with_weights_it_is_among_the_first_answers_and_without_them_left_out(tmp_path: Path) -> None:
    profile, train, _ = profile_with(trained("quicknet", tmp_path / "w"))
    for seen, wanted in ((profile, True), (ImageProfile.of(train.x), False)):
        space = pool.space(OTHER, seen)
        found = [c["family"] for partial in pool.QUICK if (c := fit_into(space, partial)) is not None]
        assert ("discriminant" in found) is wanted


def test_every_net_of_our_own_that_can_be_begun_from_can_be_seen_through() -> None:
    assert set(DiscriminantFamily.sees_through) == set(NAMES)


def test_it_is_no_beginning_for_others(tmp_path: Path) -> None:
    profile, train, valid = profile_with(trained("quicknet", tmp_path / "w"))
    config = pool.space(OTHER, profile, ["discriminant"]).default()
    net = FAMILY.fit(config, OTHER, profile, train, valid, TrainBudget(), 0)
    with pytest.raises(DataError, match="'discriminant' has no weights that another fit could begin from"):
        write_weights(net.checkpoint(), tmp_path / "next")


def test_mirror_images_count_alike_where_they_may(tmp_path: Path) -> None:
    profile, train, valid = profile_with(trained("quicknet", tmp_path / "w"))
    config = pool.space(OTHER, profile, ["discriminant"]).default()
    assert config["discriminant.mirror"]
    net = FAMILY.fit(config, OTHER, profile, train, valid, TrainBudget(), 0)
    turned = np.ascontiguousarray(valid.x[..., ::-1])
    assert np.abs(net.predict(valid.x) - net.predict(turned)).max() < 1e-5


def test_few_images_are_moved_and_mirrored_too_and_many_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile, train, valid = profile_with(trained("quicknet", tmp_path / "w"))
    rng = np.random.default_rng(0)
    more = discriminant._with_copies(train, Augment(flip=True, shift=0.125), rng)
    assert len(more) == 5 * len(train)
    assert np.array_equal(more.x[: len(train)], train.x[train.rows])
    assert np.array_equal(more.y, np.tile(train.y[train.rows], 5))
    assert not np.array_equal(more.x[len(train) : 2 * len(train)], train.x[train.rows])
    assert discriminant._with_copies(train, Augment(), rng) is train
    config = pool.space(OTHER, profile, ["discriminant"]).default()
    nets = [FAMILY.fit(config, OTHER, profile, train, valid, TrainBudget(), 3) for _ in range(2)]
    assert np.array_equal(*(net.predict(valid.x) for net in nets)), "the same seed moves them alike"
    monkeypatch.setattr(discriminant, "_MOST_IMAGES", 2 * len(train) - 1)
    assert discriminant._with_copies(train, Augment(shift=0.125), rng) is train


def test_without_images_to_choose_by_none_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some are set apart then, and of those no copy may be learned from."""
    profile, train, valid = profile_with(trained("quicknet", tmp_path / "w"))
    monkeypatch.setattr(discriminant, "_with_copies", None)
    config = pool.space(OTHER, profile, ["discriminant"]).default()
    net = FAMILY.fit(config, OTHER, profile, train, None, TrainBudget(), 0)
    assert (net.predict(valid.x[valid.rows]).argmax(axis=1) == valid.y[valid.rows]).mean() >= 0.8


def test_regions_are_coarser_where_there_would_be_too_many_features(monkeypatch: pytest.MonkeyPatch) -> None:
    profile, _, _ = data(60, side=24)
    family = pool.families(["quicknet"])["quicknet"]

    def cells(most: int) -> int:
        monkeypatch.setattr(grid, "MOST_FEATURES", most)
        inner = family.build({"quicknet.width": 16}, 1, profile)  # type: ignore[attr-defined]
        made = Grid(inner, (3, 24, 24), CLASSES.n_outputs, 3)
        assert made.features(torch.zeros(2, 3, 24, 24)).shape == (2, made.linear.in_features)
        return made.cells

    assert (cells(2_500), cells(300), cells(10)) == (3, 2, 1), "of 3 × 3 places of 32 channels, and one of 48"


def test_regions_are_those_of_an_adaptive_maximum() -> None:
    maps = torch.randn(2, 3, 7, 2)

    class Two(torch.nn.Module):
        def maps(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return maps[: len(x)], maps[: len(x), :, :1, :1]

    net = Grid(Two(), (1, 4, 4), 2, 3)
    wanted = torch.nn.functional.adaptive_max_pool2d(maps, (3, 2)).permute(0, 2, 3, 1).flatten(1)
    got = net.features(torch.zeros(2, 1, 4, 4))
    assert torch.equal(got[:, : 3 * 2 * 3], wanted)
    assert not net.train().inner.training
