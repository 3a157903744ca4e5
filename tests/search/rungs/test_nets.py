"""Rungs with nets that are really trained: pauses change nothing, and a study of images climbs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tests.jobs.ray.conftest import FakeRay, fake_cluster, fake_ray  # noqa: F401  fixtures that are used here

from tidemill.bundle.images.encoder import ImageEncoder
from tidemill.core.budget import Budget
from tidemill.core.objective import parse_objective
from tidemill.core.schema import Schema
from tidemill.core.task import Task, TaskKind
from tidemill.core.trial import TrialState
from tidemill.jobs.executors.ray.cluster import Cluster
from tidemill.models.vision._base import ImageData, ImageProfile
from tidemill.search.events import Event, ignore
from tidemill.search.settings import SearchSettings
from tidemill.search.study import Study
from tidemill.store.workspace import Workspace

torch = pytest.importorskip("torch")

CONFIG = {"family": "resnet9", "resnet9.width": 8, "resnet9.lr": 0.1, "resnet9.weight_decay": 5e-4, "resnet9.epochs": 4}


def images(rows: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """Bright squares in one half or the other."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, rows)
    x = rng.integers(0, 60, (rows, 1, 12, 12), dtype=np.uint8)
    for i, label in enumerate(y):
        x[i, 0, 2:6, 1 + 6 * label : 5 + 6 * label] += 150
    return x, y


@pytest.mark.slow
def test_a_net_that_paused_twice_is_the_net_that_never_did(tmp_path: Path) -> None:
    from tidemill.models.training.budget import TrainBudget
    from tidemill.models.vision import pool

    x, y = images()
    task = Task(TaskKind.BINARY, "y", classes=("a", "b"), positive="b")
    profile = ImageProfile.of(x, mirrored=False)
    family = pool.families(["resnet9"])["resnet9"]
    space = family.space(task, profile)
    config = {**space.complete({k: v for k, v in CONFIG.items() if k != "family"}), "family": "resnet9"}
    train, valid = ImageData(x, y, np.arange(90)), ImageData(x, y, np.arange(90, 120))

    def fit(folder: str, *stops: int) -> np.ndarray:
        for epochs in stops:
            budget = TrainBudget(epochs=epochs, of=4, folder=str(tmp_path / folder))
            net = family.fit(config, task, profile, train, valid, budget, 3)
        return np.asarray(net.predict(x[90:]))

    np.testing.assert_allclose(fit("legs", 1, 2, 4), fit("whole", 4), atol=1e-4)


@contextmanager
def searched(
    folder: Path,
    settings: SearchSettings,
    budget: Budget,
    cluster: Cluster | None = None,
    on_event: Callable[[Event], None] = ignore,
) -> Iterator[Study]:
    """A search on images."""
    from tidemill.search.fit import run_search
    from tidemill.search.images.executor import open_executor
    from tidemill.search.images.material import ImageMaterial

    x, y = images()
    task = Task(TaskKind.BINARY, "y", classes=("a", "b"), positive="b")
    material = ImageMaterial(
        encoder=ImageEncoder(12, 12, 1), schema=Schema(()), profile=ImageProfile.of(x, mirrored=False), x=x, y=y,
        rows=np.arange(len(y)), columns={},
    )  # fmt: skip
    with Workspace.open(folder / "ws") as workspace, open_executor(budget, settings, cluster) as executor:
        yield run_search(
            workspace, "climb", material, task, parse_objective("maximize accuracy"), budget, settings,
            executor=executor, on_event=on_event,
        )  # fmt: skip


@pytest.mark.slow
def test_legs_on_two_nodes_that_share_a_disk_are_those_of_one_machine(
    tmp_path: Path,
    fake_cluster: Cluster,  # noqa: F811  the fixture
    fake_ray: FakeRay,  # noqa: F811  the fixture
) -> None:
    settings = SearchSettings(schedule="rungs", epochs=4, families=("resnet9",))
    points: list[Event] = []

    def hear(event: Event) -> None:
        if event.kind == "point":
            points.append(event)

    with searched(tmp_path / "one", settings, Budget(trials=4, cpus=1)) as study:
        wanted = study.trials()
    with searched(tmp_path / "two", settings, Budget(trials=4, cpus=2), fake_cluster, hear) as study:
        found = study.trials()
    assert [(t.config, t.state) for t in found] == [(t.config, t.state) for t in wanted]
    assert len({len(t.scores) for t in found}) > 1, "some pause, some go on"
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.scores.keys() == theirs.scores.keys()
        assert [step for step, _ in ours.curve] == [step for step, _ in theirs.curve]
        assert [loss for _, loss in ours.curve] == pytest.approx([loss for _, loss in theirs.curve], rel=1e-4)
    assert len(fake_ray.actors) == 2
    assert points, "curves are seen while nets are trained"
    assert not list((tmp_path / "two" / "ws").rglob(".seen-*"))


@pytest.mark.slow
def test_a_study_of_images_climbs_rungs(tmp_path: Path) -> None:
    settings = SearchSettings(schedule="rungs", epochs=4, families=("resnet9",))
    budget = Budget(trials=4, cpus=1)
    with searched(tmp_path, settings, budget) as study:
        trials = study.trials()
    assert {t.state for t in trials} <= {TrialState.PAUSED, TrialState.COMPLETE}
    assert any(t.state is TrialState.COMPLETE and "valid@4" in t.scores for t in trials)
    assert any(t.state is TrialState.PAUSED and set(t.scores) >= {"valid@1"} for t in trials)


@pytest.mark.slow
def test_a_study_of_several_labels_a_row_climbs_rungs(tmp_path: Path) -> None:
    from tests.models.vision.test_labels import TAGS, data

    from tidemill.jobs.executors.inprocess import InProcessExecutor
    from tidemill.search.fit import run_search
    from tidemill.search.images.material import ImageMaterial

    profile, train, _ = data(96)
    x, y = np.asarray(train.x), train.y
    material = ImageMaterial(
        encoder=ImageEncoder(12, 12, 3), schema=Schema(()), profile=profile, x=x, y=y, rows=np.arange(len(y)),
        columns={},
    )  # fmt: skip
    settings = SearchSettings(schedule="rungs", epochs=4, families=("resnet9",))
    with Workspace.open(tmp_path / "ws") as workspace:
        study = run_search(
            workspace, "labels", material, TAGS, parse_objective("maximize f1_macro"), Budget(trials=4, cpus=1),
            settings, executor=InProcessExecutor(),
        )  # fmt: skip
        trials = study.trials()
        assert any(t.state is TrialState.COMPLETE and "valid@4" in t.scores for t in trials)
        assert any(t.state is TrialState.PAUSED and "valid@1" in t.scores for t in trials)
        scores = study.best.scores(study.predictions())
        assert scores.shape == (len(study.covered_rows), 3)
        assert ((scores >= 0) & (scores <= 1)).all()
        found = study.reobjective("minimize log_loss")
        assert np.isfinite(found.value)


@pytest.mark.slow
def test_where_no_epoch_count_fits_into_the_time_there_is_a_net_all_the_same(tmp_path: Path) -> None:
    settings = SearchSettings(schedule="rungs", epochs=1_000_000, families=("resnet9",))
    budget = Budget(time_s=90.0, cpus=1)
    with searched(tmp_path, settings, budget) as study:
        whole = [t for t in study.trials() if t.state is TrialState.COMPLETE]
    assert len(whole) == 1
    assert whole[0].scores["ended_after"] > 0
    steps = [step for step, _ in whole[0].curve]
    assert steps == sorted(set(steps)), "one training, gone on with in place"
