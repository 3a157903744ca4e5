"""The pool is looked at and checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.models.pretrained.made import timm_or_skip

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.models.pretrained.architectures import OF_TIMM
from tidemill.sdk.pool import entries, find, list_pool, show_architectures, show_pool
from tidemill.sdk.pool_check import check_pool


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


def test_answers_that_are_all_alike_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="a net is built")
    from tidemill.models.vision._net import TrainedNet

    answer = TrainedNet.predict
    monkeypatch.setattr(TrainedNet, "predict", lambda net, x: answer(net, x) * 0 + 1 / 3)
    done = next(iter(check_pool(("quicknet",))))
    assert done.ok is False
    assert "all alike" in done.message


def test_what_is_absent_is_no_failure() -> None:
    absent = [e.name for e in entries() if e.absent is not None]
    if not absent:
        pytest.skip("everything is installed here")
    assert all(c.ok is None and "not tried" in c.message for c in check_pool(tuple(absent[:1])))


def test_an_unknown_family_offers_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'resnet9'"):
        show_pool("resnet99")


def needs_encoders() -> None:
    for package in ("torch", "onnxscript", "transformers", "tokenizers"):
        pytest.importorskip(package, reason="encoders need the extra `text`")


def test_tasks_are_those_that_a_family_learns() -> None:
    assert "multilabel" in show_pool("quicknet")["tasks"]
    assert show_pool("discriminant")["tasks"] == ["binary", "multiclass"]
    assert show_pool("bayes")["tasks"] == ["binary", "multiclass"]
    assert show_pool("linear")["tasks"] == ["binary", "multiclass", "regression"]


def test_architectures_stand_with_the_families_that_take_their_weights() -> None:
    rows = {r["family"]: r for r in list_pool()}
    assert {"ViT", "ConvNeXt V2", "ResNet", "MobileNet V2", "SwinV2", "DINOv2", "PVT v2", "RegNet", "BEiT"} <= set(
        rows["backbone"]["architectures"].split(", ")
    )
    assert {"MiniLM", "DistilBERT", "ELECTRA", "ModernBERT", "DeBERTa-v2"} <= set(
        rows["encoder"]["architectures"].split(", ")
    )
    assert "Swin" not in rows["backbone"]["architectures"].split(", "), "it can't be exported"
    assert rows["quicknet"]["architectures"] is None
    with pytest.raises(NotFoundError, match="Did you mean 'ConvNeXt'"):
        show_pool("backbone/ConvNext9")
    with pytest.raises(NotFoundError, match="'quicknet' has no architectures"):
        show_pool("quicknet/ViT")


def test_an_architecture_is_shown_with_counted_costs() -> None:
    needs_encoders()
    vit = show_pool("backbone/vit")
    assert (vit["architecture"], vit["side"], vit["low rank"]) == ("ViT", 224, "yes")
    assert vit["params"] == 86_389_248, "as published, without the head"
    assert 33e9 < vit["flops"] < 36e9
    assert 22e6 < show_pool("sentence/minilm")["params"] < 23e6


@pytest.mark.slow
def test_all_architectures_are_counted() -> None:
    needs_encoders()
    for family in ("backbone", "encoder"):
        rows = [row for row in show_architectures(family) if not row["architecture"].startswith("timm/")]
        assert all(1e6 < row["params"] < 3e8 and row["flops"] > row["params"] for row in rows), rows


def test_an_architecture_is_checked_and_what_can_t_be_used_says_why() -> None:
    needs_encoders()
    done = {c.title: c for c in check_pool(("backbone/poolformer", "backbone/swin", "sentence/minilm"))}
    assert {title: c.ok for title, c in done.items()} == {
        "backbone/PoolFormer": True,
        "sentence/MiniLM": True,
        "backbone/Swin": None,
    }
    assert done["backbone/PoolFormer"].max_abs_dp is not None
    assert done["sentence/MiniLM"].max_abs_dp is not None
    assert "take SwinV2" in done["backbone/Swin"].message


@pytest.mark.slow
@pytest.mark.timeout(590)
@pytest.mark.parametrize("family", ["backbone", "sentence", "encoder", "discriminant"])
def test_every_architecture_is_trained_exported_and_answers_as_its_graph(family: str) -> None:
    needs_encoders()
    entry, _ = find(family)
    names = tuple(f"{family}/{one.name}" for one in entry.architectures if one not in OF_TIMM)
    done = list(check_pool(names or (family,)))
    assert not [c for c in done if c.ok is False]
    refused = [c.architecture for c in done if c.ok is None]
    assert refused == (["Swin"] if family == "backbone" else [])


@pytest.mark.slow
@pytest.mark.timeout(590)
@pytest.mark.parametrize("architecture", [one.name for one in OF_TIMM])
def test_every_architecture_of_timm_is_trained_exported_and_answers_as_its_graph(architecture: str) -> None:
    needs_encoders()
    timm_or_skip()
    (done,) = check_pool((f"backbone/{architecture}",))
    assert done.ok, done.message
    assert done.max_abs_dp is not None
    shown = show_pool(f"backbone/{architecture}")
    assert 1e6 < shown["params"] < 3e7
    assert shown["flops"] > shown["params"]


def test_a_check_finds_a_family_whose_graph_says_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="a net is built")
    pytest.importorskip("onnxscript", reason="PyTorch's exporter needs it")
    from tidemill.models.vision._net import TrainedNet

    whole = TrainedNet.predict
    monkeypatch.setattr(TrainedNet, "predict", lambda self, x: whole(self, x)[:, ::-1])
    done = next(iter(check_pool(("probe",))))
    assert done.ok is False
    assert "graph and model differ" in done.message


def test_weights_of_a_person_are_checked_by_the_families_that_take_them(tmp_path: Path) -> None:
    needs_encoders()
    from tidemill.models.pretrained.architectures import IMAGES, TEXTS, architecture
    from tidemill.models.pretrained.nets import write_tiny
    from tidemill.sdk.pool_tries import TELLING, write_study

    reader = write_tiny(architecture("MiniLM", TEXTS), tmp_path / "minilm", TELLING)
    assert [c.name for c in check_pool(("probe", "sentence", "backbone"), str(reader)) if c.ok] == ["sentence"]
    seer = write_tiny(architecture("PoolFormer", IMAGES), tmp_path / "poolformer")
    (done,) = check_pool(("backbone", "resnet9", "sentence"), str(seer))
    assert (done.name, done.ok) == ("backbone", True), done
    own = write_study(tmp_path / "own")
    assert [c.name for c in check_pool(("discriminant", "resnet9", "backbone"), own) if c.ok] == ["discriminant"]
    (seer / "config.json").write_text(json.dumps({"model_type": "no-such-net"}))
    (broken,) = check_pool(("backbone",), str(seer))
    assert broken.ok is False
    assert "can't be opened" in broken.message
    with pytest.raises(OptionError, match="No family can begin from these weights"):
        list(check_pool(("linear",), str(reader)))
    with pytest.raises(NotFoundError, match="There are no weights at"):
        list(check_pool((), str(tmp_path / "nowhere")))


def test_a_library_that_can_t_be_loaded_is_a_failed_check_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_encoders()
    from tidemill.models.pretrained import nets

    def broken() -> None:
        try:
            raise RuntimeError("operator torchvision::nms does not exist")
        except RuntimeError as error:
            raise ModuleNotFoundError("Could not import module 'ResNetModel'.") from error

    monkeypatch.setattr(nets, "load_transformers", broken)
    (done,) = check_pool(("backbone/resnet",))
    assert done.ok is False
    assert done.message == "a library can't be loaded: operator torchvision::nms does not exist"
