"""Where trials and predictions run makes no difference to what comes of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.jobs.ray.conftest import FakeRay, fake_ray  # noqa: F401  a fixture that is used here

import tidemill as tm
from tidemill.bundle.runtime import Bundle
from tidemill.core.errors import MissingExtraError, OptionError
from tidemill.core.trial import TrialState
from tidemill.jobs.executors.ray.host import Host
from tidemill.sdk.batch import open_engine
from tidemill.sdk.bundles import predict_to_csv
from tidemill.sdk.options import FitOptions
from tidemill.search.heldout.trial import HeldOutAssignment

WORDS: dict[str, Any] = {"trials": 4, "families": ("linear", "lightgbm"), "test_size": 0.3}


def table(rows: int = 160) -> dict[str, Any]:
    rng = np.random.default_rng(5)
    x, c = rng.normal(size=rows), rng.choice(["u", "v", "w"], rows)
    y = np.where(x + (c == "u") + 0.4 * rng.normal(size=rows) > 0.3, "yes", "no")
    return {"x": x.round(4).tolist(), "c": c.tolist(), "y": y.tolist()}


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ({"engine": "rai"}, "--engine: There is no engine 'rai'. Did you mean 'ray'"),
        ({"ray_address": "head:6379"}, "--ray-address: An address is for --engine ray"),
        ({"engine": "ray", "in_process": True}, "not both"),
        ({"engine": "inprocess", "time": "5s"}, "can't be ended"),
    ],
)
def test_engines_that_can_not_be_used_are_refused(words: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        FitOptions(**words)


def test_without_ray_no_study_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"tidemill\[ray\]"):
        tm.fit(table(), "y", workspace=tmp_path, engine="ray", **WORDS)
    from tidemill.sdk.studies import list_studies

    assert list_studies(workspace=tmp_path) == []


def ledger(study: tm.Study) -> list[Any]:
    return [(t.number, t.state, t.config, t.seed, t.fold_scores) for t in study.search.trials()]


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Trials of a search in processes of this machine."""
    with tm.fit(table(), "y", workspace=tmp_path_factory.mktemp("w"), cpus=2, **WORDS) as study:
        return ledger(study)


def test_a_search_in_this_process_has_the_same_trials(wanted: list[Any], tmp_path: Path) -> None:
    with tm.fit(table(), "y", workspace=tmp_path, engine="inprocess", cpus=1, **WORDS) as study:
        assert ledger(study) == wanted


def test_a_search_on_two_nodes_has_the_same_trials(
    wanted: list[Any],
    tmp_path: Path,
    fake_ray: FakeRay,  # noqa: F811  the fixture
) -> None:
    with tm.fit(table(), "y", workspace=tmp_path, engine="ray", **WORDS) as study:
        assert ledger(study) == wanted
        assert study.search.record.settings["source"]["options"]["limits"]["trials"] == 4
    assert len(fake_ray.actors) == 2
    assert len(fake_ray.puts) >= 3  # the other node had the rows sent
    assert all(actor.dead for actor in fake_ray.actors)


def test_a_search_goes_on_when_a_node_is_lost(
    wanted: list[Any],
    tmp_path: Path,
    fake_ray: FakeRay,  # noqa: F811  the fixture
) -> None:
    def hear(event: Any) -> None:
        if event.kind == "finished" and fake_ray.cluster[1].alive:
            fake_ray.lose(fake_ray.cluster[1])

    with tm.fit(table(), "y", workspace=tmp_path, engine="ray", on_event=hear, **WORDS) as study:
        assert ledger(study) == wanted
    assert not fake_ray.cluster[1].alive


def test_images_are_searched_on_two_nodes(
    tmp_path: Path,
    fake_ray: FakeRay,  # noqa: F811  the fixture
) -> None:
    pytest.importorskip("torch", reason="a fit on images trains nets")
    from tests.sdk.test_images import digits

    words: dict[str, Any] = {"trials": 2, "families": ("probe",), "engine": "ray"}
    with tm.fit(digits(tmp_path / "photos", 120), workspace=tmp_path / "w", **words) as study:
        assert [t.state for t in study.search.trials()] == [TrialState.COMPLETE] * 2
    assert len(fake_ray.actors) == 2


def test_rungs_are_for_nodes_that_share_a_disk(
    tmp_path: Path,
    fake_ray: FakeRay,  # noqa: F811  the fixture
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("torch", reason="a fit on images trains nets")
    from tests.sdk.test_images import digits

    monkeypatch.setattr(Host, "sees", lambda self, mark: fake_ray.local.node.name == "here")
    words: dict[str, Any] = {"trials": 2, "engine": "ray", "schedule": "rungs", "epochs": 2}
    with pytest.raises(OptionError, match=r"rungs/\w+ is not seen by .*\(there\), and steps go on there"):
        tm.fit(digits(tmp_path / "photos", 60), workspace=tmp_path / "w", **words)


def test_texts_are_searched_on_two_nodes(
    tmp_path: Path,
    fake_ray: FakeRay,  # noqa: F811  the fixture
) -> None:
    from tests.sdk.test_texts import reviews

    rows = reviews(tmp_path / "reviews.csv", 150)
    words: dict[str, Any] = {"kind": "text-classification", "trials": 2, "families": ("ngrams",)}
    with tm.fit(rows, "animal", workspace=tmp_path / "one", engine="inprocess", cpus=1, **words) as study:
        wanted = ledger(study)
    with tm.fit(rows, "animal", workspace=tmp_path / "two", engine="ray", **words) as study:
        assert ledger(study) == wanted
    assert len(fake_ray.actors) == 2
    assert len(fake_ray.puts) >= 3  # the other node had the texts sent


def test_trained_weights_go_along(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    files, weights = {"x": "/x.npy", "cache": "/cache", "diverged": "/lost"}, [str(tmp_path / "net"), "some/hub-name"]
    asked = HeldOutAssignment({}, files, (), "accuracy", profile={"weights": weights})
    assert asked.places == ("/x.npy", str(tmp_path / "net"))
    assert asked.scratch == ("/cache", "/lost")


# ------------------------------------------------------------------------------------------------------- predictions


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("bundle")
    words = {**WORDS, "trials": 1, "families": ("linear",), "cpus": 1, "in_process": True}
    with tm.fit(table(), "y", workspace=folder / "w", **words) as study:
        return study.best.export(folder / "b.tm")


def test_files_are_the_same_bytes_whatever_the_engine(
    bundle: Bundle,
    tmp_path: Path,
    fake_ray: FakeRay,  # noqa: F811  the fixture
) -> None:
    rows = table(50)
    for engine in ("inprocess", "process", "ray"):
        assert predict_to_csv(bundle.path, rows, tmp_path / engine, engine=engine) == 50
    found = {(tmp_path / engine).read_bytes() for engine in ("inprocess", "process", "ray")}
    assert len(found) == 1


def test_an_engine_that_is_none_is_refused() -> None:
    with pytest.raises(OptionError, match="no engine 'dask'"), open_engine("dask"):
        pass
    with pytest.raises(OptionError, match="for --engine ray"), open_engine("process", "head:6379"):
        pass
