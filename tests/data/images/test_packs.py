"""Many files as few artifacts, and back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidemill.data.images import packs
from tidemill.data.images.packs import PackFiles, content_places, pack_files
from tidemill.store.artifacts import LocalArtifactStore


class Memory:
    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files

    def names(self) -> list[str]:
        return sorted(self.files)

    def has(self, name: str) -> bool:
        return name in self.files

    def read(self, name: str) -> bytes:
        return self.files[name]


@settings(max_examples=15)
@given(st.dictionaries(st.text(min_size=1, max_size=4), st.binary(max_size=40), max_size=12))
def test_every_file_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> None:
    store = LocalArtifactStore(tmp_path_factory.mktemp("store"))
    names = list(files)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packs, "PACK_BYTES", 50)
        places = pack_files(Memory(files), names, store.put)
        assert places == content_places(Memory(files), names)
    found = PackFiles(store, dict(zip(names, places, strict=True)))
    assert {name: found.read(name) for name in names[::-1]} == files
    assert found.names() == sorted(files)


def test_a_damaged_pack_is_told(tmp_path: Path) -> None:
    store = LocalArtifactStore(tmp_path)
    places = pack_files(Memory({"a": b"12", "b": b"34"}), ["a", "b"], store.put)
    path = next(p for p in tmp_path.rglob("*") if p.name == places[0].key)
    path.write_bytes(b"12x4")
    found = PackFiles(store, dict(zip("ab", places, strict=True)))
    with pytest.raises(ValueError, match=r"the workspace can.t give it .*damaged"):
        found.read("a")
    with pytest.raises(ValueError, match="no such file"):
        found.read("c")
