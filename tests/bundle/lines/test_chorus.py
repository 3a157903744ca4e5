"""Several nets in one bundle read as one, in the graph as in the library that trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from tests.bundle.lines.made import WORDS, StripePart, line_of, pictures, recipe
from tests.bundle.lines.test_searched import doubtful, its_program_writes_the_same

from tidemill.bundle.evidence import Evidence
from tidemill.bundle.lines.parity import prove
from tidemill.bundle.lines.parts import Chorus, heard, the_part, the_parts
from tidemill.bundle.lines.runtime import LineBundle
from tidemill.bundle.lines.write import write_line_bundle
from tidemill.bundle.parts import Member, Recipe
from tidemill.bundle.runner.beams import read_beams
from tidemill.bundle.verify import verify
from tidemill.core import transcripts
from tidemill.core.errors import InternalError, ParityError
from tidemill.data.images.pictures import ArrayPictures

WEIGHTS = (0.2, 0.3, 0.5)


def several(*skews: float) -> Recipe:
    parts = [StripePart(skew, lit) for skew, lit in zip(skews or (0.0, 0.0, 0.0), (0.0, 40.0, 25.0), strict=True)]
    members = tuple(Member(w, [part], f"s{i}") for i, (w, part) in enumerate(zip(WEIGHTS, parts, strict=True)))
    return replace(recipe(), members=members)


def written(out: Path, width: int = 0) -> LineBundle:
    wrong = transcripts.to_scores(np.full(len(WORDS), 0.9), ["?"] * len(WORDS))
    evidence = [Evidence("out_of_fold", transcripts.to_codes(WORDS), wrong)]
    opened = write_line_bundle(
        out, several(), tables={"validation": pictures()}, evidence=evidence, width=width
    )  # fmt: skip
    assert isinstance(opened, LineBundle)
    return opened


def test_what_is_said_is_the_weighted_mean_made_probabilities_again() -> None:
    part = the_part(several())
    assert isinstance(part, Chorus)
    line = doubtful()[1][:, :, 0]
    mean = sum(w * p.frames([line])[0].astype(np.float64) for w, p in zip(WEIGHTS, part.parts, strict=True))
    said = part.frames([line])[0]
    assert np.allclose(np.exp(said).sum(axis=1), 1.0, atol=1e-6)
    assert np.allclose(said - said[:, :1], mean - mean[:, :1], atol=1e-4)


def test_where_texts_are_searched_for_each_net_finds_some_and_all_weigh_them(tmp_path: Path) -> None:
    bundle = written(tmp_path / "several.tm", 4)
    assert bundle.spec.decode["nets"] == 3
    config = (bundle.path / "config.pbtxt").read_text(encoding="utf-8")
    assert "dims: [ 3, -1, 3 ]" in config
    assert "3 nets find texts and weigh each other's" in (bundle.path / "README.md").read_text(encoding="utf-8")
    lines = doubtful()
    parts = the_parts(several())
    graph = onnxruntime.InferenceSession(str(bundle.model_path), providers=["CPUExecutionProvider"])
    for line, record in zip(lines, bundle.predict_records(lines), strict=True):
        (pixels,) = recipe().encoder.transform({"image": [line]})
        texts, sure = read_beams(np.stack([p.frames([pixels])[0] for p in parts])[None], "aß", 4, 1e-6)
        assert record["prediction"] == texts[0]
        assert record["confidence"] == pytest.approx(float(sure[0]), abs=1e-4)
        by_first = transcripts.to_texts(transcripts.codes_of(parts[0].predict([pixels])))
        assert graph.run(["prediction"], {"image": line[None]})[0].tolist() == by_first
    alone = [
        read_beams(parts[0].frames([p]), "aß", 4, 1e-6)[0][0] for p in recipe().encoder.transform({"image": lines})
    ]
    assert alone != [record["prediction"] for record in bundle.predict_records(lines)], "the others have no say"


@pytest.mark.parametrize("width", [0, 4])
def test_the_bundle_is_proven_whole_and_its_program_reads_alike(tmp_path: Path, width: int) -> None:
    bundle = written(tmp_path / "several.tm", width)
    assert verify(bundle.path) == []
    assert [m["name"] for m in bundle.spec.members] == ["s0", "s1", "s2"]
    assert [record["prediction"] for record in bundle.predict_records([line_of(w) for w in WORDS])] == list(WORDS)
    its_program_writes_the_same(bundle, tmp_path)


def test_the_graph_alone_reads_them_together(tmp_path: Path) -> None:
    bundle = written(tmp_path / "several.tm")
    run = onnxruntime.InferenceSession(str(bundle.model_path), providers=["CPUExecutionProvider"])
    together = [run.run(None, {"image": line[None]})[0][0] for line in doubtful()]
    expected = the_part(several()).predict(_lines(), 1e-6)
    assert together == transcripts.to_texts(transcripts.codes_of(expected))
    alone = transcripts.to_texts(transcripts.codes_of(StripePart().predict(_lines())))
    assert together != alone


def test_one_wrong_export_among_them_is_found() -> None:
    with pytest.raises(ParityError):
        prove(several(0.0, 60.0, 0.0), {"validation": ArrayPictures(doubtful())})


def test_nets_of_other_characters_do_not_read_together() -> None:
    other = StripePart()
    other.alphabet = "ab"
    with pytest.raises(InternalError, match="the same characters"):
        Chorus([StripePart(), other], [0.5, 0.5])


def test_lines_of_one_width_are_asked_about_together() -> None:
    lines = np.empty(5, dtype=object)
    lines[:] = [np.full((8, width), 255, np.uint8) for width in (16, 32, 16, 16, 32)]
    groups = [(places.tolist(), frames.shape) for places, frames in heard(StripePart(), lines)]
    assert groups == [([0, 2, 3], (3, 4, 3)), ([1, 4], (2, 8, 3))]


def _lines() -> np.ndarray:
    found = doubtful()
    lines = np.empty(len(found), dtype=object)
    lines[:] = [np.asarray(Image.fromarray(line).convert("L")) for line in found]
    return lines
