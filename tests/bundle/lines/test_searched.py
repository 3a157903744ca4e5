"""A bundle that searches for its texts says the same in Tidemill, in its program, and as the trained net did."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from tests.bundle.lines.made import WORDS, StripePart, line_of, make, pictures, recipe

from tidemill.bundle.evidence import Evidence
from tidemill.bundle.lines.runtime import LineBundle
from tidemill.bundle.lines.write import beam_width, write_line_bundle
from tidemill.bundle.runner.beams import DECODE, FRAMES, BeamSession, read_beams
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.verify import verify
from tidemill.core import transcripts
from tidemill.core.errors import BundleError, OptionError, ParityError

FAINT = 195
"""A tone between ß and paper: paper is likelier at each step, a ß somewhere along three of them is likelier still."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> LineBundle:
    return make(tmp_path_factory.mktemp("bundle") / "stripes.tm", width=4)


def doubtful() -> list[np.ndarray]:
    """Lines of which a search reads some, the first among them, otherwise than the best path does."""
    rng = np.random.default_rng(3)
    tones = [[255] * 8 + [FAINT] * 12 + [255] * 12, *(rng.integers(90, 256, 12).repeat(4) for _ in range(12))]
    return [np.array(t, np.uint8)[None, :, None].repeat(8, axis=0).repeat(3, axis=2) for t in tones]


def its_program_writes_the_same(bundle: LineBundle, folder: Path) -> None:
    for i, line in enumerate(doubtful()[:9]):
        Image.fromarray(line).save(folder / f"{i}.png")
    ours, theirs = folder / "ours.csv", folder / "theirs.csv"
    bundle.to_csv(folder, ours)
    command = [sys.executable, str(bundle.path / "run.py"), str(folder), str(theirs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert theirs.read_bytes() == ours.read_bytes()


def test_the_folder_is_whole_and_says_how_it_searches(bundle: LineBundle) -> None:
    assert verify(bundle.path) == []
    described = json.loads((bundle.path / "bundle.json").read_text(encoding="utf-8"))
    assert described["decode"] == {"alphabet": "aß", "width": 4, "margin": pytest.approx(1e-6)}
    assert (described["parity"]["rows"], described["parity"]["flips"]) == (len(WORDS), 0)
    card = (bundle.path / "README.md").read_text(encoding="utf-8")
    assert "searched for by beams of 4 behind the graph" in card
    assert "Figures are of texts searched for by beams of 4, as this bundle answers" in card
    assert FRAMES in (bundle.path / "config.pbtxt").read_text(encoding="utf-8")


def test_known_lengths_bind_the_bundle_and_the_program_beside_it(bundle: LineBundle, tmp_path: Path) -> None:
    bound = make(tmp_path / "bound.tm", width=8, lengths=[2])
    assert verify(bound.path) == []
    assert json.loads((bound.path / "bundle.json").read_text(encoding="utf-8"))["decode"]["lengths"] == [2]
    found, free = (
        [record["prediction"] for record in Bundle.open(one.path).predict_records(doubtful())]
        for one in (bound, bundle)
    )
    assert [len(text) for text in found] == [2] * len(found)
    assert {len(text) for text in free} != {2}
    its_program_writes_the_same(bound, tmp_path)


def test_without_a_search_nothing_of_it_is_written(tmp_path: Path) -> None:
    plain = make(tmp_path / "plain.tm")
    assert "decode" not in json.loads((plain.path / "bundle.json").read_text(encoding="utf-8"))
    session = plain.session()
    assert [o.name for o in session.get_outputs()] == ["prediction", "confidence"]
    assert DECODE not in session.get_modelmeta().custom_metadata_map


def test_it_reads_what_the_net_itself_gives_and_not_always_the_best_path(bundle: LineBundle) -> None:
    opened, part, lines = Bundle.open(bundle.path), StripePart(), doubtful()
    records = opened.predict_records(lines)
    run = onnxruntime.InferenceSession(str(bundle.model_path), providers=["CPUExecutionProvider"])
    best = [run.run(["prediction"], {"image": line[None]})[0][0] for line in lines]
    for line, record in zip(lines, records, strict=True):
        (pixels,) = recipe().encoder.transform({"image": [line]})
        texts, sure = read_beams(part.frames([pixels]), part.alphabet, 4, 1e-6)
        assert record["prediction"] == texts[0]
        assert record["confidence"] == pytest.approx(float(sure[0]), abs=1e-4)
    assert (records[0]["prediction"], best[0]) == ("ß", "")
    assert isinstance(opened.session(), BeamSession)


def test_the_program_beside_it_writes_the_same_bytes(bundle: LineBundle, tmp_path: Path) -> None:
    its_program_writes_the_same(bundle, tmp_path)


def test_what_is_searched_for_is_measured_anew(bundle: LineBundle, tmp_path: Path) -> None:
    values = {m.name: m.value for m in bundle.spec.metrics}
    assert values["cer"] == 0.0, "the evidence that came along had every text wrong"
    y = transcripts.to_codes(["a"])
    lost = [Evidence("out_of_fold", y, transcripts.to_scores(np.ones(1), ["a"]))]
    with pytest.raises(BundleError, match="can be read again"):
        write_line_bundle(tmp_path / "b.tm", recipe(), tables={"validation": pictures()}, evidence=lost, width=3)


def test_a_graph_that_reads_otherwise_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="expected"):
        make(tmp_path / "wrong.tm", width=4, skew=40.0)
    assert not (tmp_path / "wrong.tm").exists()


def test_a_description_that_names_another_width_is_found(bundle: LineBundle) -> None:
    from dataclasses import replace

    from tidemill.bundle.verify import _check_graph

    other = replace(bundle.spec, decode={**bundle.spec.decode, "width": 5})
    assert any("how texts are searched for" in str(f) for f in _check_graph(bundle.path, other))
    assert onnx.load_model(str(bundle.model_path)).graph.output[-1].name == FRAMES


@pytest.mark.parametrize("words", ["beams", "greedy:3", "beam:0", "beam:", "beam:1001", "beam:x", "beam:²", ""])
def test_other_words_are_told(words: str) -> None:
    with pytest.raises(OptionError, match="beam:WIDTH"):
        beam_width(words)


def test_lines_of_one_call_are_read_as_each_alone(bundle: LineBundle) -> None:
    lines = [line_of("aß"), line_of("ßa"), line_of("aaaß")]
    alone = [bundle.predict([line])[0] for line in lines]
    assert bundle.predict(lines).tolist() == alone
