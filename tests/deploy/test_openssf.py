"""A signature fits its bundle and its key, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tidemill.cli.main import run
from tidemill.core.errors import BundleError, MissingExtraError, OptionError
from tidemill.deploy import openssf

needs_package = pytest.mark.skipif(importlib.util.find_spec("model_signing") is None, reason="needs the extra signing")


@pytest.fixture
def bundle(small_bundles: Callable[[int], Path], tmp_path: Path) -> Path:
    """A copy that a test may change."""
    shutil.copytree(small_bundles(0), tmp_path / "small.tm")
    return tmp_path / "small.tm"


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "owner.pem", openssf.make_keys(tmp_path / "owner.pem")


def test_a_private_key_is_its_owners_alone_and_never_replaced(tmp_path: Path) -> None:
    openssf.make_keys(tmp_path / "k.pem")
    before = (tmp_path / "k.pem").read_bytes()
    assert (tmp_path / "k.pem").stat().st_mode & 0o777 == 0o600
    with pytest.raises(OptionError, match="could not be written"):
        openssf.make_keys(tmp_path / "k.pem")
    assert (tmp_path / "k.pem").read_bytes() == before


@needs_package
def test_what_was_signed_is_known_again(bundle: Path, keys: tuple[Path, Path]) -> None:
    private, public = keys
    signature = openssf.sign(bundle, private)
    assert signature == bundle.with_name("small.tm.sig")
    openssf.check(bundle, signature, public)
    envelope = json.loads(signature.read_bytes())
    assert envelope["mediaType"].startswith("application/vnd.dev.sigstore.bundle")
    assert not [p for p in bundle.parent.iterdir() if p.name.endswith(".part")]


@needs_package
@pytest.mark.parametrize("name", ["1/model.onnx", "bundle.json", "tests/golden.npz", "manifest.json"])
def test_a_flipped_bit_is_found(bundle: Path, keys: tuple[Path, Path], name: str) -> None:
    signature = openssf.sign(bundle, keys[0])
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(bytes(data))
    with pytest.raises(BundleError, match="does not fit"):
        openssf.check(bundle, signature, keys[1])


@needs_package
def test_a_file_more_or_less_is_found(bundle: Path, keys: tuple[Path, Path]) -> None:
    signature = openssf.sign(bundle, keys[0])
    (bundle / "extra").write_text("x")
    with pytest.raises(BundleError, match="does not fit"):
        openssf.check(bundle, signature, keys[1])
    (bundle / "extra").unlink()
    openssf.check(bundle, signature, keys[1])
    (bundle / "README.md").unlink()
    with pytest.raises(BundleError, match="does not fit"):
        openssf.check(bundle, signature, keys[1])


@needs_package
def test_another_key_did_not_sign(bundle: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    signature = openssf.sign(bundle, keys[0])
    with pytest.raises(BundleError):
        openssf.check(bundle, signature, openssf.make_keys(tmp_path / "other.pem"))


@needs_package
@pytest.mark.parametrize("text", ["", "{}", "[]", "not a signature", '{"mediaType": 1}'])
def test_bytes_are_no_signature(bundle: Path, keys: tuple[Path, Path], tmp_path: Path, text: str) -> None:
    (tmp_path / "x.sig").write_text(text)
    with pytest.raises(BundleError):
        openssf.check(bundle, tmp_path / "x.sig", keys[1])


@needs_package
def test_what_can_not_be_used_is_told(bundle: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("no key")
    with pytest.raises(OptionError, match="no key that can be used"):
        openssf.sign(bundle, tmp_path / "no.pem")
    with pytest.raises(OptionError, match="no such file"):
        openssf.sign(bundle, tmp_path / "absent.pem")
    with pytest.raises(OptionError, match="would change what it signs"):
        openssf.sign(bundle, keys[0], bundle / "model.sig")
    signature = openssf.sign(bundle, keys[0])
    with pytest.raises(OptionError, match="no key that can be used"):
        openssf.check(bundle, signature, tmp_path / "no.pem")
    with pytest.raises(OptionError, match="no such file"):
        openssf.check(bundle, tmp_path / "absent.sig", keys[1])


@needs_package
def test_a_person_signs_and_checks(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    private, signature = tmp_path / "me.pem", tmp_path / "small.tm.sig"
    assert run(["sign", str(bundle), "--key", str(private), "--new-key"]) == 0
    said = capsys.readouterr().out
    assert str(signature) in said
    assert f"{private}.pub" in said
    words = ["verify", str(bundle), "--signature", str(signature), "--key", f"{private}.pub"]
    assert run(words) == 0
    assert "signature" in capsys.readouterr().out
    assert run([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "problems": []}
    other = openssf.make_keys(tmp_path / "other.pem")
    assert run([*words[:-1], str(other), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False
    assert run(["verify", str(bundle), "--signature", str(signature)]) == 2
    assert "--key" in capsys.readouterr().err
    (bundle / "README.md").write_text("changed")
    assert run(["sign", str(bundle), "--key", str(private)]) == 1
    assert "README.md" in capsys.readouterr().err


def test_an_absent_package_is_told(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(MissingExtraError, match=r"tidemill\[signing\]"):
        openssf.sign(bundle, bundle / "k")
