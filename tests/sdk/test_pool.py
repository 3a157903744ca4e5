"""The pool is looked at and checked."""

from __future__ import annotations

import pytest

from tidemill.core.errors import NotFoundError
from tidemill.sdk.pool import check_pool, entries, list_pool, show_pool


def test_every_family_of_every_modality_is_listed() -> None:
    rows = {r["family"]: r for r in list_pool()}
    assert {"lightgbm", "resnet9", "probe", "backbone"} <= set(rows)
    assert all(r["about"] for r in rows.values())
    assert {r["modality"] for r in list_pool("image")} == {"image"}
    assert [r["family"] for r in list_pool("text")] == ["ngrams", "sentence", "encoder"]
    with pytest.raises(NotFoundError, match="Did you mean 'image'"):
        list_pool("images")


def test_a_family_of_tables_is_shown_and_checked() -> None:
    assert show_pool("linear")["modality"] == "table"
    done = list(check_pool(("linear", "bayes")))
    assert [(c.name, c.ok) for c in done] == [("linear", True), ("bayes", True)]
    assert all(c.max_abs_dp is not None and c.max_abs_dp <= 1e-5 for c in done)


def test_a_family_of_images_is_shown_with_counted_costs_and_checked() -> None:
    pytest.importorskip("torch", reason="a net is built")
    pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it")
    shown = show_pool("mobilenet")
    assert 10_000 < shown["params"] < 10_000_000
    assert shown["flops"] > shown["params"]
    done = next(iter(check_pool(("probe",))))
    assert done.ok, done.message
    assert done.max_abs_dp is not None


def test_what_is_absent_is_no_failure() -> None:
    absent = [e.name for e in entries() if e.absent is not None]
    if not absent:
        pytest.skip("everything is installed here")
    assert all(c.ok and "not tried" in c.message for c in check_pool(tuple(absent[:1])))


def test_an_unknown_family_offers_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'resnet9'"):
        show_pool("resnet99")
