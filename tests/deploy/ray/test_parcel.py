"""A bundle arrives as it left, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tidemill.core.errors import BundleError
from tidemill.deploy.engine.facts import read_facts
from tidemill.deploy.ray.parcel import pack, unpack

Bundles = Callable[[int], Path]


def test_a_bundle_travels_whole_and_without_strangers(small_bundles: Bundles, tmp_path: Path) -> None:
    sent = small_bundles(0)
    parcel = pack(sent)
    arrived = unpack(parcel, tmp_path)
    assert read_facts(arrived).id == read_facts(sent).id
    assert {p.relative_to(arrived).as_posix() for p in arrived.rglob("*") if p.is_file()} == set(parcel)
    assert pack(arrived) == parcel


def test_a_bare_graph_travels_too(small_bundles: Bundles, tmp_path: Path) -> None:
    graph = small_bundles(0) / "1" / "model.onnx"
    arrived = unpack(pack(graph), tmp_path)
    assert arrived.name == "model.onnx"
    assert arrived.read_bytes() == graph.read_bytes()


def test_what_changed_on_the_way_is_refused(small_bundles: Bundles, tmp_path: Path) -> None:
    parcel = pack(small_bundles(0))
    parcel["bundle.json"] += b" "
    with pytest.raises(BundleError, match="did not arrive whole"):
        unpack(parcel, tmp_path / "changed")
    parcel = pack(small_bundles(0))
    del parcel["1/model.onnx"]
    with pytest.raises(BundleError, match="did not arrive whole"):
        unpack(parcel, tmp_path / "less")


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", ""])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(BundleError, match="not in the bundle"):
        unpack({name: b"x"}, tmp_path / "in")
    assert not (tmp_path / "x").exists()
