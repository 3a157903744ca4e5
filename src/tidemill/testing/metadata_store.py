"""What every `MetadataStore` keeps. Subclass `MetadataStoreSuite` and supply the fixture ``open_store``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any

import pytest

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.core.protocols import MetadataStore
from tidemill.core.trial import Cost, StudyRecord, Trial, TrialState, Usage

OpenStore = Callable[[], MetadataStore]
"""Opens a store, at each call anew, on one and the same place that was empty before the test."""


def example_study(name: str = "income", **changes: Any) -> StudyRecord:
    """Give a study record with something in every field."""
    record = StudyRecord(
        name=name,
        task={"kind": "binary", "target": "income", "classes": ["<=50K", ">50K"]},
        objective="maximize roc_auc; latency_ms <= 5",
        space=[{"name": "family", "choices": ["lightgbm", "linear"]}],
        settings={"seed": 7, "folds": 5, "lag": None, "share": 0.1},
        dataset_version="ab" * 32,
        versions={"numpy": "2.4.6"},
        state="running",
        created_at=1_790_000_000.25,
        artifacts={"split": "cd" * 32},
    )
    return replace(record, **changes)


def example_trial(study: str = "income", number: int = 0, **changes: Any) -> Trial:
    """Give a trial with something in every field, and with what is hard to keep: NaN, infinities, strange text."""
    trial = Trial(
        study=study,
        number=number,
        config={"family": "lightgbm", "lightgbm.num_leaves": 31, "lightgbm.rate": 0.1, "dart": False, "cap": None},
        state=TrialState.COMPLETE,
        family="lightgbm",
        origin="portfolio",
        fold_scores=(0.91, 1 / 3, math.inf),
        scores={"roc_auc": 0.1 + 0.2, "log_loss": math.inf, "mcc": -math.inf, "tiny": 5e-324, "minus": -0.0},
        cost=Cost(params=2**40, flops=12, size_bytes=345, latency_ms=0.25),
        usage=Usage(wall_s=1.5, cpu_s=2.25, peak_memory_bytes=3 * 2**30),
        curve=((1, 0.9), (10, math.inf), (100, 0.3)),
        seed=2**63 - 1,
        fidelity=0.25,
        folds=3,
        artifacts={"oof": "01" * 32, "test": "23" * 32},
        error="It is 5 µm too wide, and NUL \0 came along.",
        traceback='Traceback…\n  File "a.py", line 1\n\udce9 ☃ 🌊\n',
        started_at=1_790_000_001.125,
        finished_at=1_790_000_002.625,
    )
    return replace(trial, **changes)


class MetadataStoreSuite:
    """The laws of the ledger."""

    @pytest.fixture
    def open_store(self) -> OpenStore:
        """Return a function that opens the store under test; overridden by every implementation."""
        raise NotImplementedError("supply the fixture open_store")

    @pytest.fixture
    def store(self, open_store: OpenStore) -> Iterator[MetadataStore]:
        """An open store."""
        store = open_store()
        yield store
        store.close()

    def test_a_fresh_store_is_empty(self, store: MetadataStore) -> None:
        assert list(store.studies()) == []
        assert list(store.dataset_versions()) == []

    def test_a_study_comes_back_as_it_was(self, store: MetadataStore) -> None:
        store.create_study(example_study())
        assert store.get_study("income") == example_study()

    def test_studies_stand_oldest_first(self, store: MetadataStore) -> None:
        for name in ("c", "a", "b"):
            store.create_study(example_study(name))
        assert [record.name for record in store.studies()] == ["c", "a", "b"]

    def test_a_name_is_given_once(self, store: MetadataStore) -> None:
        store.create_study(example_study(objective="first"))
        with pytest.raises(OptionError, match="'income' already"):
            store.create_study(example_study(objective="second"))
        assert store.get_study("income").objective == "first"

    @pytest.mark.parametrize("name", ["", "a\nb", "nul\0", "\udce9"])
    def test_a_name_can_be_printed(self, store: MetadataStore, name: str) -> None:
        with pytest.raises(OptionError, match="printable"):
            store.create_study(example_study(name))

    def test_an_unknown_study_offers_the_nearest(self, store: MetadataStore) -> None:
        store.create_study(example_study())
        calls: list[Callable[[], object]] = [
            lambda: store.get_study("incme"),
            lambda: store.update_study("incme", state="complete"),
            lambda: store.delete_study("incme"),
            lambda: store.put_trial(example_trial("incme")),
            lambda: store.trials("incme"),
            lambda: store.log_event("incme", "stage", {}),
            lambda: store.events("incme"),
        ]
        for call in calls:
            with pytest.raises(NotFoundError, match="'incme'") as caught:
                call()
            assert "Did you mean 'income'?" in str(caught.value)

    def test_an_update_changes_what_it_names_and_merges_artifacts(self, store: MetadataStore) -> None:
        store.create_study(example_study())
        store.create_study(example_study("other"))
        store.update_study("income", state="complete")
        store.update_study("income", objective="minimize log_loss")
        store.update_study("income", artifacts={"best": "ef" * 32})
        expected = example_study(
            state="complete", objective="minimize log_loss", artifacts={"split": "cd" * 32, "best": "ef" * 32}
        )
        assert store.get_study("income") == expected
        assert store.get_study("other") == example_study("other")

    def test_a_trial_comes_back_as_it_was(self, store: MetadataStore) -> None:
        store.create_study(example_study())
        store.put_trial(example_trial())
        (found,) = store.trials("income")
        assert found == example_trial()
        assert type(found.fold_scores) is tuple
        assert type(found.config["lightgbm.num_leaves"]) is int
        assert found.config["dart"] is False
        assert math.copysign(1.0, found.scores["minus"]) == -1.0

    def test_not_a_number_survives(self, store: MetadataStore) -> None:
        store.create_study(example_study())
        nan = math.nan
        put = example_trial(fold_scores=(nan,), scores={"rmse": nan}, curve=((1, nan),), cost=Cost(latency_ms=nan))
        store.put_trial(put)
        (found,) = store.trials("income")
        numbers = (found.fold_scores[0], found.scores["rmse"], found.curve[0][1], found.cost.latency_ms)
        assert all(isinstance(x, float) and math.isnan(x) for x in numbers)

    def test_a_bare_trial_comes_back_as_it_was(self, store: MetadataStore) -> None:
        store.create_study(example_study())
        bare = Trial("income", 0, {}, TrialState.RUNNING, "linear")
        store.put_trial(bare)
        assert list(store.trials("income")) == [bare]

    @pytest.mark.parametrize("state", list(TrialState))
    def test_every_state_survives(self, store: MetadataStore, state: TrialState) -> None:
        store.create_study(example_study())
        store.put_trial(example_trial(state=state))
        assert store.trials("income")[0].state is state

    def test_trials_stand_by_number_within_their_study(self, store: MetadataStore) -> None:
        for name in ("income", "other"):
            store.create_study(example_study(name))
        for number in (10, 2, 1):
            store.put_trial(example_trial(number=number))
        store.put_trial(example_trial("other", 1))
        assert [trial.number for trial in store.trials("income")] == [1, 2, 10]
        assert [trial.study for trial in store.trials("other")] == ["other"]

    def test_the_same_number_replaces_every_field(self, store: MetadataStore) -> None:
        store.create_study(example_study())
        store.put_trial(example_trial())
        bare = Trial("income", 0, {"family": "linear"}, TrialState.FAILED, "linear")
        store.put_trial(bare)
        assert list(store.trials("income")) == [bare]

    def test_a_study_takes_its_trials_and_events_along(self, store: MetadataStore) -> None:
        for name in ("income", "other"):
            store.create_study(example_study(name))
            store.put_trial(example_trial(name))
            store.log_event(name, "stage", {"name": "baselines"})
        store.delete_study("income")
        assert [record.name for record in store.studies()] == ["other"]
        assert len(store.trials("other")) == 1
        store.create_study(example_study())
        assert list(store.trials("income")) == []
        assert list(store.events("income")) == []

    def test_a_dataset_version_is_added_once(self, store: MetadataStore) -> None:
        first = example_version()
        assert store.put_dataset_version(first)
        assert not store.put_dataset_version({**first, "rows": 1})
        assert [dict(v) for v in store.dataset_versions("adult")] == [first]

    def test_dataset_versions_stand_oldest_first_and_by_dataset(self, store: MetadataStore) -> None:
        for dataset, key in (("b", "2"), ("a", "1"), ("b", "1")):
            store.put_dataset_version(example_version(dataset=dataset, hash=key * 64))
        assert [v["hash"][0] for v in store.dataset_versions("b")] == ["2", "1"]
        assert [v["dataset"] for v in store.dataset_versions()] == ["b", "a", "b"]
        assert [(v["dataset"], v["hash"][0]) for v in store.dataset_versions(hash="1")] == [("a", "1"), ("b", "1")]
        assert list(store.dataset_versions("a", hash="2")) == []
        assert list(store.dataset_versions("c")) == []

    def test_a_dataset_version_has_its_fields_and_no_others(self, store: MetadataStore) -> None:
        with pytest.raises(OptionError, match="colour"):
            store.put_dataset_version({**example_version(), "colour": "blue"})
        with pytest.raises(OptionError, match="rows"):
            store.put_dataset_version({k: v for k, v in example_version().items() if k != "rows"})

    def test_events_stand_in_order_with_their_time(self, store: MetadataStore) -> None:
        store.create_study(example_study())
        for number in range(3):
            store.log_event("income", "stage", {"number": number, "loss": math.inf})
        found = store.events("income")
        assert [set(event) for event in found] == [{"at", "kind", "payload"}] * 3
        assert [event["payload"] for event in found] == [{"number": n, "loss": math.inf} for n in range(3)]
        assert found[0]["at"] <= found[1]["at"] <= found[2]["at"]

    def test_what_was_written_is_there_when_opened_again(self, open_store: OpenStore) -> None:
        first = open_store()
        first.create_study(example_study())
        first.put_trial(example_trial())
        first.close()
        second = open_store()
        try:
            assert second.get_study("income") == example_study()
            assert list(second.trials("income")) == [example_trial()]
        finally:
            second.close()

    def test_another_store_sees_a_trial_at_once(self, store: MetadataStore, open_store: OpenStore) -> None:
        other = open_store()
        try:
            store.create_study(example_study())
            store.put_trial(example_trial(number=0))
            assert len(other.trials("income")) == 1
            other.put_trial(example_trial(number=1))
            assert len(store.trials("income")) == 2
        finally:
            other.close()

    def test_two_that_write_at_once_lose_nothing(self, open_store: OpenStore) -> None:
        stores = [open_store(), open_store()]
        try:
            stores[0].create_study(example_study())

            def write(which: int) -> None:
                for i in range(20):
                    stores[which].put_trial(example_trial(number=2 * i + which))
                    stores[which].update_study("income", artifacts={f"{which}-{i}": "ab" * 32})
                    stores[which].log_event("income", "stage", {"who": which})

            with ThreadPoolExecutor(2) as threads:
                list(threads.map(write, range(2)))
            assert [trial.number for trial in stores[0].trials("income")] == list(range(40))
            assert len(stores[0].get_study("income").artifacts) == 1 + 40
            assert len(stores[0].events("income")) == 40
        finally:
            for store in stores:
                store.close()

    def test_closing_twice_is_allowed(self, open_store: OpenStore) -> None:
        store = open_store()
        store.close()
        store.close()

    def test_the_example_says_something_in_every_field(self) -> None:
        bare = Trial("", 0, {}, TrialState.RUNNING, "")
        same = [f.name for f in fields(Trial) if getattr(example_trial(number=1), f.name) == getattr(bare, f.name)]
        assert same == []


def example_version(**changes: Any) -> dict[str, Any]:
    """Give the record of a dataset version with something in every field."""
    return {
        "hash": "12" * 32,
        "dataset": "adult",
        "created_at": 1_790_000_000.5,
        "rows": 2**33,
        "schema": [{"name": "age", "type": "number", "low": -math.inf, "unit": None}],
        "parents": ["34" * 32],
        "operation": "merge",
        "parameters": {"on": "id"},
        "artifacts": {"table": "56" * 32},
        **changes,
    }
