"""The pool is data: it can be read without what the families need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.models.vision.made import CLASSES

from tidemill.core.errors import NotFoundError, SpaceError
from tidemill.models import registry
from tidemill.models.registry import Entry
from tidemill.models.vision import pool
from tidemill.models.vision._base import ImageProfile


def test_the_pool_is_listed_without_loading_torch() -> None:
    program = "import sys; from tidemill.models.vision import pool; pool.entries(); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_an_entry_says_what_is_absent_and_how_to_get_it() -> None:
    entry = Entry("x", "nowhere:X", packages=("no_such_package", "neither_this"))
    assert entry.absent is not None
    assert "'no_such_package', 'neither_this' are not installed" in entry.absent
    assert "tidemill[deep]" in entry.absent


def test_an_unknown_family_offers_the_nearest() -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'resnet9'"):
        pool.families(["resnet_9"])


def test_every_listed_config_fits_the_space_or_is_left_out() -> None:
    pytest.importorskip("torch", reason="without it no family is there")
    from tidemill.search.samplers.baseline import fit_into

    space = pool.space(CLASSES, ImageProfile.of(np.zeros((50, 3, 8, 8), np.uint8)))
    known = [fit_into(space, c) for c in (*pool.QUICK, *pool.PORTFOLIO)]
    assert known[0] is not None
    assert sum(c is not None for c in known) >= 6
    for given, config in zip((*pool.QUICK, *pool.PORTFOLIO), known, strict=True):
        if config is not None:
            assert all(config[k] == v for k, v in given.items() if k in config)


def test_a_handful_of_images_is_not_enough() -> None:
    pytest.importorskip("torch", reason="without it no family is there")
    with pytest.raises(SpaceError, match=r"No family can learn multiclass from 3 images\. Give more images"):
        pool.space(CLASSES, ImageProfile.of(np.zeros((3, 3, 8, 8), np.uint8)))


def described(folder: Path, kind: str) -> str:
    """A folder that says of what kind its net is, which nobody opens."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))
    return str(folder)


def with_weights(*weights: str) -> ImageProfile:
    return ImageProfile.of(np.zeros((50, 3, 8, 8), np.uint8), weights=weights)


def test_after_the_head_of_a_backbone_all_of_it_is_tuned_then_its_attention_where_it_has_one(tmp_path: Path) -> None:
    for package in ("torch", "transformers", "onnxscript"):
        pytest.importorskip(package, reason="without it the family is absent")
    from tidemill.search.samplers.portfolio import PortfolioSampler

    def tried(folder: str) -> list[tuple[object, object]]:
        space = pool.space(CLASSES, with_weights(folder))
        found = [c for c in PortfolioSampler(pool.PORTFOLIO).configs(space) if c["family"] == "backbone"]
        return [(c["backbone.mode"], c.get("backbone.lora")) for c in found]

    assert tried(described(tmp_path / "vit", "vit")) == [("probe", None), ("tune", 0), ("tune", 8)]
    assert tried(described(tmp_path / "resnet", "resnet")) == [("probe", None), ("tune", None)]
    assert tried(described(tmp_path / "unknown", "somebodys-own")) == [("probe", None), ("tune", None)]


def test_low_rank_is_offered_for_the_weights_that_have_where_it_goes(tmp_path: Path) -> None:
    for package in ("torch", "transformers", "onnxscript"):
        pytest.importorskip(package, reason="without it the family is absent")
    vit, resnet = described(tmp_path / "vit", "vit"), described(tmp_path / "resnet", "resnet")
    space = pool.space(CLASSES, with_weights(resnet, vit), ["backbone"])
    tuned = {"family": "backbone", "backbone.mode": "tune"}
    assert "backbone.lora" in space.complete({**tuned, "backbone.weights": vit})
    assert "backbone.lora" not in space.complete({**tuned, "backbone.weights": resnet})
    assert "backbone.lora" not in space.complete({"family": "backbone", "backbone.weights": vit})


def test_policies_of_augmentation_and_blending_are_choices_of_every_net(tmp_path: Path) -> None:
    for package in ("torch", "transformers", "onnxscript"):
        pytest.importorskip(package, reason="without it the family is absent")
    space = pool.space(CLASSES, with_weights(described(tmp_path / "vit", "vit")))
    for name in ("quicknet", "resnet9", "resnet", "mobilenet", "backbone"):
        begun = {"family": name, f"{name}.randaugment": 2, **({"backbone.mode": "tune"} if name == "backbone" else {})}
        config = space.complete(begun)
        assert config[f"{name}.magnitude"] == 9
        assert config[f"{name}.mix"] == "none"
        assert f"{name}.trivial" not in config, "one policy or the other"
        assert f"{name}.magnitude" not in space.complete({**begun, f"{name}.randaugment": 0})


def test_what_is_lacking_for_backbones_is_named_with_all_its_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_is_there", lambda package: package != "transformers")
    absent = next(entry for entry in pool.entries() if entry.name == "backbone").absent
    assert absent is not None
    assert "tidemill[deep,text]" in absent
