"""Whatever is wrong with a bundle is found, and the file is named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from tidemill.bundle import golden, manifest
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.verify import COMPILED, verify
from tidemill.core.errors import BundleError, NotFoundError


def names(folder: Path) -> list[str]:
    return [f.path for f in verify(folder)]


def reseal(folder: Path) -> None:
    """Write the manifest anew, as somebody would who wants a change to go unseen."""
    listed = manifest.parse((folder / manifest.NAME).read_bytes())
    entries = {n: manifest.entry_of(folder / n) for n in listed if (folder / n).exists()}
    (folder / manifest.NAME).write_bytes(manifest.render(entries))


def test_one_flipped_byte_anywhere_is_found_and_named(copied: Path) -> None:
    rng = np.random.default_rng(0)
    files = sorted(p for p in copied.rglob("*") if p.is_file())
    assert len(files) >= 14
    for path in files:
        whole = path.read_bytes()
        for position in {0, len(whole) - 1, *rng.integers(0, len(whole), 3).tolist()}:
            damaged = bytearray(whole)
            damaged[position] ^= 1 << int(rng.integers(8))
            path.write_bytes(bytes(damaged))
            assert names(copied) == [path.relative_to(copied).as_posix()], position
        path.write_bytes(whole)
    assert names(copied) == []


def test_a_cut_file_is_found(copied: Path) -> None:
    path = copied / "1" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1])
    assert "the manifest says" in str(verify(copied)[0])


def test_missing_and_extra_files_are_found(copied: Path) -> None:
    (copied / "run.py").unlink()
    (copied / "1" / "evil.pkl").write_bytes(b"")
    assert names(copied) == ["run.py", "1/evil.pkl"]


def test_a_missing_file_that_the_manifest_forgot_is_found(copied: Path) -> None:
    (copied / "tests" / "golden.npz").unlink()
    reseal(copied)
    assert names(copied) == ["tests/golden.npz"]


def test_compiled_code_is_found(copied: Path) -> None:
    (copied / "1" / "code" / "__pycache__").mkdir()
    (copied / "1" / "code" / "__pycache__" / "tidemill_pyfunc.cpython-312.pyc").write_bytes(b"")
    assert [f.message for f in verify(copied)] == [COMPILED]


def test_a_link_is_no_file(copied: Path) -> None:
    os.replace(copied / "run.py", copied.parent / "run.py")
    (copied / "run.py").symlink_to(copied.parent / "run.py")
    assert "link" in str(verify(copied)[0])


def test_a_manifest_can_not_point_outside(copied: Path) -> None:
    listed = manifest.parse((copied / manifest.NAME).read_bytes())
    outside = copied.parent / "outside"
    outside.write_text("x")
    listed["../outside"] = manifest.entry_of(outside)
    (copied / manifest.NAME).write_bytes(manifest.render(listed))
    assert any("not in the bundle" in f.message for f in verify(copied))


def test_no_bundle_at_all(tmp_path: Path) -> None:
    assert "no such folder" in str(verify(tmp_path / "none")[0])
    assert "is this a bundle?" in str(verify(tmp_path)[0])


def changed_model(folder: Path, change: Callable[[onnx.ModelProto], None]) -> list[str]:
    model = onnx.load(str(folder / "1" / "model.onnx"))
    change(model)
    (folder / "1" / "model.onnx").write_bytes(model.SerializeToString())
    reseal(folder)
    return [str(f) for f in verify(folder)]


def test_a_resealed_model_that_answers_otherwise_is_found(copied: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) == 2:
                array = onnx.numpy_helper.to_array(tensor) + 0.1
                array[:, 0] += 1
                tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype(np.float32), tensor.name))

    assert changed_model(copied, change) == [
        "tests/golden.npz: The graph gives other probabilities than it did when it was written."
    ]


def test_custom_operators_are_found(copied: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[0].domain = "com.evil"
        model.opset_import.append(onnx.helper.make_opsetid("com.evil", 1))

    assert any("com.evil" in f for f in changed_model(copied, change))


def test_newer_operator_sets_are_found(copied: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = 23
        model.ir_version = 12

    found = changed_model(copied, change)
    assert any("operator set 23" in f for f in found)
    assert any("IR version 12" in f for f in found)


def test_data_outside_of_the_file_is_found(copied: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.append(onnx.StringStringEntryProto(key="location", value="../secret"))
        tensor.ClearField("raw_data")

    assert any("outside of the file" in f for f in changed_model(copied, change))


def test_a_resealed_program_is_found(copied: Path) -> None:
    with (copied / "run.py").open("a") as file:
        file.write("import os; os.system('true')\n")
    reseal(copied)
    assert names(copied) == ["run.py"]


def test_a_resealed_description_is_held_against_the_graph(copied: Path) -> None:
    data = json.loads((copied / "bundle.json").read_bytes())
    data["schema"][0]["unit"] = "inch"
    (copied / "bundle.json").write_text(json.dumps(data))
    reseal(copied)
    assert names(copied) == ["1/model.onnx"]
    data["task"] = None
    (copied / "bundle.json").write_text(json.dumps(data))
    reseal(copied)
    assert names(copied) == ["bundle.json"]


def test_pickled_golden_rows_are_never_loaded(copied: Path) -> None:
    np.savez(copied / golden.NAME, input_names=np.array([{}], dtype=object))
    reseal(copied)
    assert names(copied) == ["tests/golden.npz"]


def test_opening_a_damaged_bundle_is_one_clear_message(copied: Path, tmp_path: Path) -> None:
    path = copied / "1" / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(BundleError, match=r"model\.onnx: The file is damaged"):
        Bundle.open(copied)
    with pytest.raises(BundleError, match="no manifest"):
        Bundle.open(tmp_path)
    with pytest.raises(NotFoundError, match=r"Did you mean 'small\.tm'"):
        Bundle.open(tmp_path / "smal.tm")
