"""What the workspace's key has signed is known, and nothing else."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import BundleError, WorkspaceError
from tidemill.deploy.signing import SigningKey


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return SigningKey.open(tmp_path_factory.mktemp("keys"))


def test_a_key_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    first = SigningKey.open(tmp_path / "keys")
    assert SigningKey.open(tmp_path / "keys").id == first.id
    assert (tmp_path / "keys" / "signing.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert sorted(p.name for p in (tmp_path / "keys").iterdir()) == ["signing.key", "signing.pub"]


def test_many_at_once_make_one_key(tmp_path: Path) -> None:
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.append(SigningKey.open(tmp_path / "k").id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(ids) == 8
    assert len(set(ids)) == 1


@given(manifest=st.binary(max_size=200), other=st.binary(max_size=200))
def test_a_signature_fits_its_manifest_alone(key: SigningKey, manifest: bytes, other: bytes) -> None:
    document = key.sign(manifest)
    key.check(manifest, document)
    if other != manifest:
        with pytest.raises(BundleError, match="does not fit"):
            key.check(other, document)


@given(st.binary(max_size=300))
def test_bytes_are_no_signature(key: SigningKey, document: bytes) -> None:
    with pytest.raises(BundleError):
        key.check(b"manifest", document)


def test_a_document_can_not_bring_its_own_key(key: SigningKey, tmp_path: Path) -> None:
    other = SigningKey.open(tmp_path)
    forged = json.loads(other.sign(b"manifest"))
    with pytest.raises(BundleError, match="another key"):
        key.check(b"manifest", json.dumps(forged).encode())
    forged["key"] = key.id
    with pytest.raises(BundleError, match="does not fit"):
        key.check(b"manifest", json.dumps(forged).encode())


def test_a_signature_of_other_bytes_by_the_same_key_is_none(key: SigningKey) -> None:
    """What the key signs begins with what it is for."""
    assert key._private is not None
    import base64

    document = json.loads(key.sign(b"manifest"))
    document["signature"] = base64.b64encode(key._private.sign(b"manifest")).decode()
    with pytest.raises(BundleError, match="does not fit"):
        key.check(b"manifest", json.dumps(document).encode())


def test_a_damaged_key_is_told(tmp_path: Path) -> None:
    (tmp_path / "signing.key").write_text("nonsense")
    with pytest.raises(WorkspaceError, match="damaged"):
        SigningKey.open(tmp_path)
