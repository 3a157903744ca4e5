"""An encoder that others trained, not a small one of ours: what it says of texts, and what it is worth."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.conftest import data_folder

for package in ("torch", "transformers", "tokenizers", "onnxscript"):
    pytest.importorskip(package, reason="encoders need the extra `text`")

import tidemill as tm
from tidemill.bundle.verify import verify
from tidemill.core.task import Task, TaskKind

pytestmark = [pytest.mark.slow, pytest.mark.timeout(590)]

PUBLISHED = {
    # From the documentation of sentence-transformers, of all-MiniLM-L6-v2.
    ("The weather is lovely today.", "It's so sunny outside!"): 0.6660,
    ("The weather is lovely today.", "He drove to the stadium."): 0.1046,
    ("It's so sunny outside!", "He drove to the stadium."): 0.1411,
}
NEAR_TO_FAR = (
    ("A man is eating food.", "A man is eating a piece of bread."),
    ("A man is eating food.", "Someone has lunch at a restaurant."),
    ("A man is eating food.", "A man is riding a horse."),
    ("A man is eating food.", "The committee approved the annual budget."),
)
STRANGE = ("", "naïve café 🙂 — “quotes”", "word " * 400, "никогда не говори никогда", "a\n\tb")


@pytest.fixture(scope="module")
def embed(minilm: str) -> Callable[[Sequence[str]], NDArray[np.float32]]:
    """Numbers of texts by the exported graph and the tokenizer of the folder."""
    from tests.bundle.fusion.made import objects

    from tidemill.models.fusion.encoder import embed_cells
    from tidemill.models.fusion.texts import open_texts

    made = open_texts("said", minilm, 256)
    assert made.width == 384
    assert made.params is not None
    assert 22.5e6 < made.params < 22.8e6
    return lambda given: embed_cells(made, objects(list(given)))


def by_transformers(folder: str, given: Sequence[str]) -> NDArray[np.float32]:
    """The same by the library itself, tokenizer included: the mean of the tokens that are no filling."""
    import torch
    import transformers

    reader = transformers.AutoTokenizer.from_pretrained(folder)
    net = transformers.AutoModel.from_pretrained(folder).eval()
    tokens = reader(list(given), padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        hidden = net(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None].float()
    return np.asarray((hidden * mask).sum(dim=1) / mask.sum(dim=1))


def cosine(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_pairs_of_sentences_are_as_near_as_is_published(embed: Callable[..., NDArray[np.float32]]) -> None:
    for (one, other), wanted in PUBLISHED.items():
        first, second = embed([one, other])
        assert cosine(first, second) == pytest.approx(wanted, abs=2e-3)


def test_the_nearer_in_meaning_the_nearer(embed: Callable[..., NDArray[np.float32]]) -> None:
    found = [cosine(*embed(pair)) for pair in NEAR_TO_FAR]
    assert all(one > other + 0.1 for one, other in pairwise(found)), found


def test_the_graph_with_its_tokenizer_says_what_pytorch_says(
    embed: Callable[..., NDArray[np.float32]], minilm: str
) -> None:
    given = [*(text for pair in (*PUBLISHED, *NEAR_TO_FAR) for text in pair), *STRANGE[1:]]
    assert np.abs(embed(given) - by_transformers(minilm, given)).max() < 1e-4
    assert not embed(STRANGE[:1]).any(), "an empty text says nothing"


def test_a_head_on_it_answers_in_the_graph_as_it_does(minilm: str) -> None:
    from tests.models.text.test_families import graph_of

    from tidemill.models.text import pool
    from tidemill.models.text._base import TextData, TextProfile
    from tidemill.models.training.budget import TrainBudget

    task = Task(TaskKind.BINARY, "y", ("bad", "good"))
    rows = [(f"{how} {what}", good) for good, words in enumerate((BAD, GOOD)) for how in words for what in THINGS]
    x = np.array([text for text, _ in rows], dtype=object)
    y = np.array([good for _, good in rows])
    order = np.random.default_rng(0).permutation(len(x))
    profile = TextProfile.of(x, weights=(minilm,))
    config = pool.space(task, profile, ["sentence"]).default()
    train, valid = TextData(x, y, order[:60]), TextData(x, y, order[60:])
    model = pool.families(["sentence"])["sentence"].fit(config, task, profile, train, valid, TrainBudget(), 0)
    given = [*x[order[60:]], *STRANGE]
    wanted = model.predict(np.array(given, dtype=object))
    assert np.abs(graph_of(model)(given) - wanted).max() < 1e-4
    unseen = np.array(["truly delightful music", "utterly dreadful music"], dtype=object)
    assert model.predict(unseen).argmax(axis=1).tolist() == [1, 0], "words that stand in no row"


GOOD = ("a wonderful", "an excellent", "a brilliant", "a charming", "a superb")
BAD = ("a terrible", "an awful", "a boring", "a miserable", "a dull")
THINGS = ("film", "evening", "book", "meal", "story", "show", "concert", "play")


def part(source: Path, out: Path, rows: int) -> Path:
    """The first rows of a table."""
    with source.open(encoding="utf-8", newline="") as file, out.open("w", encoding="utf-8", newline="") as told:
        writer = csv.writer(told)
        for place, row in enumerate(csv.reader(file)):
            if place <= rows:
                writer.writerow(row)
    return out


def test_of_few_reviews_it_learns_more_than_n_grams(minilm: str, tmp_path: Path) -> None:
    root = data_folder()
    if root is None or not (root / "text" / "rt_polarity").is_dir():
        pytest.skip("the open data has no text/rt_polarity; set TIDEMILL_DATA to its folder")
    train = part(root / "text" / "rt_polarity" / "train.csv", tmp_path / "train.csv", 600)
    test = part(root / "text" / "rt_polarity" / "test.csv", tmp_path / "test.csv", 1000)
    words: dict[str, Any] = {
        "trials": 1,
        "cpus": 1,
        "in_process": True,
        "test_size": 0.0,
        "kind": "text-classification",
    }
    right = {}
    for family, weights in (("ngrams", ()), ("sentence", (minilm,))):
        with tm.fit(train, "label", workspace=tmp_path / "w", families=(family,), weights=weights, **words) as study:
            study.best.export(tmp_path / f"{family}.tm")
        assert verify(tmp_path / f"{family}.tm") == []
        right[family] = tm.load(tmp_path / f"{family}.tm").evaluate(test)["accuracy"]
    assert right["sentence"] > 0.68
    assert right["sentence"] > right["ngrams"] + 0.03, right
