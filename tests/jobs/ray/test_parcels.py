"""Files reach a node whole, once, under new paths, and leave nothing behind."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import TrialError
from tidemill.jobs.executors.ray.parcels import Folder, Parcel, Stock, moved

plain = st.recursive(
    st.one_of(st.integers(), st.none(), st.sampled_from(["/a", "/b", "c", ""])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(st.sampled_from(["k", "/a"]), inner, max_size=2),
    ),
    max_leaves=8,
)


@given(plain)
def test_what_is_moved_there_and_back_is_the_same(value: Any) -> None:
    there = {"/a": "/x", "/b": "/y/z"}
    gone = moved(value, there)
    assert moved(gone, {new: old for old, new in there.items()}) == value
    assert moved(value, {}) == value
    assert "'/b'" not in repr(gone)


@dataclass(frozen=True)
class Asks:
    files: dict[str, str]
    folder: Path
    number: int = 3


def test_paths_in_dataclasses_are_moved_and_others_stay_the_same_objects() -> None:
    asks = Asks({"x": "/a"}, Path("/b"))
    assert moved([asks], {"/a": "/x", "/b": "/y"}) == [Asks({"x": "/x"}, Path("/y"))]
    still = Asks({}, Path("/c"))
    array = object()
    assert moved(array, {"/a": "/x"}) is array
    assert moved(still, {"/a": "/x"}) == still


def fetch(piece: bytes) -> bytes:
    return piece


@given(content=st.binary(max_size=40), piece=st.integers(1, 50))
def test_a_file_arrives_as_it_was_whatever_its_pieces(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, piece: int
) -> None:
    here = tmp_path_factory.mktemp("here")
    (here / "x.npy").write_bytes(content)
    place, parcels = Stock(lambda data: data, piece_bytes=piece).take(str(here / "x.npy"))
    folder = Folder("one", here / "there")
    folder.place(parcels, fetch)
    assert (folder.path / place).read_bytes() == content
    assert Path(place).name == "x.npy"
    folder.leave()
    assert not folder.path.exists()


def test_a_folder_arrives_with_all_that_is_in_it(tmp_path: Path) -> None:
    source = tmp_path / "net"
    (source / "deep").mkdir(parents=True)
    (source / "config.json").write_bytes(b"{}")
    (source / "deep" / "w.bin").write_bytes(b"12")
    place, parcels = Stock(lambda data: data).take(str(source))
    folder = Folder("one", tmp_path / "there")
    folder.place(parcels, fetch)
    assert (folder.path / place / "config.json").read_bytes() == b"{}"
    assert (folder.path / place / "deep" / "w.bin").read_bytes() == b"12"
    folder.leave()
    (source / "config.json").write_bytes(b"[]")
    assert Stock(lambda data: data).take(str(source))[0] != place


def test_the_same_content_is_put_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"same")
    puts: list[bytes] = []
    stock = Stock(lambda data: puts.append(data) or data)  # type: ignore[func-returns-value]
    for name in ("a", "b", "a"):
        stock.take(str(tmp_path / name))
    assert puts == [b"same"]
    (tmp_path / "a").write_bytes(b"another")
    stock.take(str(tmp_path / "a"))
    assert puts == [b"same", b"another"]


def test_what_can_not_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(TrialError, match=r"absent: It can't be sent to a node: No such file"):
        Stock(lambda data: data).take(str(tmp_path / "absent"))


def test_what_changed_on_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    _, [parcel] = Stock(lambda data: data).take(str(tmp_path / "x"))
    folder = Folder("one", tmp_path / "there")
    with pytest.raises(TrialError, match="did not arrive whole"):
        folder.place([Parcel(parcel.place, parcel.digest, (b"abd",))], fetch)
    assert not (folder.path / parcel.place).exists()
    folder.place([parcel], fetch)
    assert (folder.path / parcel.place).read_bytes() == b"abc"
    folder.leave()


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    _, parcels = Stock(lambda data: data).take(str(tmp_path / "x"))
    one, other = Folder("one", tmp_path / "there"), Folder("one", tmp_path / "there")
    one.place(parcels, fetch)
    other.place(parcels, lambda piece: pytest.fail("it is there"))
    one.leave()
    other.leave()


def test_the_last_one_removes_the_folder(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    place, parcels = Stock(lambda data: data).take(str(tmp_path / "x"))
    one, other = Folder("one", tmp_path / "there"), Folder("one", tmp_path / "there")
    one.place(parcels, fetch)
    other.place(parcels, fetch)
    one.leave()
    assert (other.path / place).exists()
    other.leave()
    other.leave()
    assert not other.path.exists()
    assert [p.name for p in (tmp_path / "there").iterdir()] == [".lock"]


def test_what_a_killed_worker_left_is_removed_by_the_next(tmp_path: Path) -> None:
    there = tmp_path / "there"
    for name in ("left", "used"):
        (there / name).mkdir(parents=True)
        (there / name / ".held").touch()
    with (there / "used" / ".held").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        (tmp_path / "x").write_bytes(b"abc")
        folder = Folder("one", there)
        folder.place(Stock(lambda data: data).take(str(tmp_path / "x"))[1], fetch)
        assert sorted(p.name for p in there.iterdir() if p.is_dir()) == ["one", "used"]
    folder.leave()


def test_a_folder_of_somebody_else_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4242)
    with pytest.raises(TrialError, match="belongs to somebody else"):
        Folder("one", tmp_path).place([Parcel("p/x", "0" * 64, ())], fetch)


def test_without_files_there_is_no_folder(tmp_path: Path) -> None:
    folder = Folder("one", tmp_path / "there")
    folder.place([], fetch)
    folder.leave()
    assert not (tmp_path / "there").exists()
