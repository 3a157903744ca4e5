"""Feedback on texts that were read: counted, and a dataset from which a search learns to read."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tests.bundle.lines.made import line_of, make
from tests.deploy.engine.conftest import Start, until
from tests.deploy.watch.test_media import Served, ask_for, packed

from tidemill.core import transcripts
from tidemill.core.schema import SemanticType
from tidemill.data.versions import load_version
from tidemill.deploy.watch.agreement import agree
from tidemill.deploy.watch.capture import META
from tidemill.deploy.watch.cases import as_version
from tidemill.deploy.watch.recent import Batch, Place
from tidemill.deploy.watch.report import report
from tidemill.deploy.watch.truth import count_truth
from tidemill.deploy.watch.window import Window, merge
from tidemill.sdk.images import image_table
from tidemill.sdk.lines import prepare_lines
from tidemill.sdk.modality.choose import modality_asked
from tidemill.sdk.options import FitOptions
from tidemill.sdk.sources import read_version
from tidemill.store.workspace import Workspace

READ = Batch("a", {}, {"prediction": np.array(["Ulm 7", "äb"], dtype=object)}, ["r", "s"], 0.0)


@pytest.fixture
def lines(workspace: Workspace, tmp_path: Path, start: Start) -> Iterator[Served]:
    served = Served(workspace, make(tmp_path / "small.tm").path, start)
    yield served
    served.watch.close()


def test_a_text_is_right_as_a_whole_and_its_characters_are_counted() -> None:
    window = Window()
    assert count_truth(window, '"Ulm 7"', Place(READ, 0)) is True
    assert count_truth(window, '"a\\u0308b\\n"', Place(READ, 1)) is True, "spelled as transcripts are learned"
    assert count_truth(window, '"Elm 71"', Place(READ, 0)) is False
    assert count_truth(window, '""', Place(READ, 1)) is False, "nothing stands there, but something was read"
    both = merge([window, window])
    assert (both.feedback, both.feedback_right, both.feedback_wrong) == (8, 4, 4)
    assert (both.feedback_characters, both.feedback_character_errors) == (2 * (5 + 2 + 6 + 0), 2 * (2 + 2))
    assert not both.confusion


@pytest.mark.parametrize(("folded", "right"), [(True, True), (False, False)])
def test_capitals_are_forgiven_where_the_model_reads_in_lower_case(folded: bool, right: bool) -> None:
    assert count_truth(Window(), '"ULM 7"', Place(READ, 0), folded=folded) is right


def test_a_number_is_the_text_that_is_read() -> None:
    number = Batch("a", {}, {"prediction": np.array([b"7"], dtype=object)}, ["r"], 0.0)
    assert count_truth(Window(), "7", Place(number, 0)) is True
    assert agree(number, 0, number, 0)


def test_values_and_labels_are_no_texts() -> None:
    assert Batch("a", {}, {"prediction": np.array([7.0])}, ["r"], 0.0).texts is None
    assert Batch("a", {}, {"label": np.array(["7"], dtype=object)}, ["r"], 0.0).texts is None


def test_lines_that_were_read_wrongly_come_back_as_lines_to_learn_from(lines: Served, workspace: Workspace) -> None:
    words = ("a", "ßa", "aß", "ßß")
    asked = {word: ask_for(lines, packed(line_of(word))) for word in words}
    lines.fold(len(words))
    for word, request in asked.items():
        lines.tell(request, "Aa" if word == "ßa" else word)
    seen = partial(lines.watch.window, "m", next(iter(workspace.records.get("endpoint", "m").body["traffic"])))
    until(lambda: lines.watch.fold() is None and seen().feedback == len(words))
    metrics = lines.watch.render_metrics()
    lines.watch.close()
    (revision,) = report(workspace, "m")["revisions"]
    truth = revision["truth"]
    assert (truth["rows"], truth["accuracy"], truth["character_error_rate"]) == (4, 0.75, 1 / 7)
    assert "tidemill_feedback_character_errors_total{" in metrics

    version = as_version(workspace, "m", name="wrong", reasons=("wrong",))
    table, schema = load_version(workspace, version.ref)
    assert schema["text"].type is SemanticType.TARGET
    assert table["text"].to_pylist() == ["Aa"]
    assert table[f"{META}label"].to_pylist() == ["ßa"], "what was read stands beside"

    as_version(workspace, "m", name="all")
    named = read_version("all", workspace)
    assert named is not None
    ready = prepare_lines(image_table(workspace, named.raw, named.version.schema), "text", FitOptions(test_size=0))
    assert sorted(transcripts.to_texts(ready.y)) == ["Aa", "a", "aß", "ßß"]
    modality, asked = modality_asked(workspace, "all", None, FitOptions(kind="text-recognition"))
    assert (modality.name, asked.target) == ("line", "text")
