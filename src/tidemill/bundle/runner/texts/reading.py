"""Texts as numbers: the same code reads them for training, for the proof, and beside a bundle.

A reader is what stands between a text and a graph, which holds no tokenizer: plain onnxruntime has none. It is a file
of the bundle and an entry of the graph's metadata; here both become a function from texts to inputs of the graph.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

MOST_BATCH = 32
"""Texts that go through a graph at a time, all of about one length."""
MOST_CHARACTERS = 20_000
"""What stands further behind in a text is not read."""
PADDING = -1
"""Stands behind the tokens of a shorter text; no vocabulary has it."""
WORD = re.compile(r"\w+")

Read = Callable[[Sequence[str]], dict[str, Any]]
"""From texts to inputs of the graph by name, a row for each text."""


def open_reader(entry: Mapping[str, Any], data: bytes) -> Read:
    """Make the function that an entry and its file describe.

    ``{"kind": "tokens", "key": …, "length": …}`` reads with a ``tokenizer.json``, ``{"kind": "grams", "key": …}`` with
    a list of pieces of text.
    """
    key = entry["key"]
    if entry["kind"] == "tokens":
        tokenizer = open_tokenizer(data, int(entry["length"]))
        return lambda texts: {f"tokens_{key}": read_tokens(tokenizer, texts)}
    rules = json.loads(data)
    places = {gram: place for place, gram in enumerate(rules["grams"])}

    def read(texts: Sequence[str]) -> dict[str, Any]:
        grams, counts = read_grams(places, rules["kind"], rules["low"], rules["high"], texts)
        return {f"grams_{key}": grams, f"counts_{key}": counts}

    return read


def open_tokenizer(data: bytes, length: int) -> Any:
    """Open a ``tokenizer.json`` that cuts what is longer than so many tokens."""
    from tokenizers import Tokenizer  # type: ignore[import-not-found,unused-ignore]  # comes with the extra

    tokenizer = Tokenizer.from_str(data.decode("utf-8"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length=length)
    return tokenizer


def read_tokens(tokenizer: Any, texts: Sequence[str]) -> Any:
    """Tokens of texts as int64 of shape (texts, longest), shorter ones filled up with `PADDING`; at least one each."""
    found = [each.ids or [0] for each in tokenizer.encode_batch([text[:MOST_CHARACTERS] for text in texts])]
    out = np.full((len(found), max(map(len, found), default=1)), PADDING, dtype=np.int64)
    for row, ids in enumerate(found):
        out[row, : len(ids)] = ids
    return out


def grams_of(text: str, kind: str, low: int, high: int) -> list[str]:
    """Runs of ``low`` to ``high`` words of a text, or of characters within its words; a word has a space around it.

    >>> grams_of("Not good!", "words", 1, 2)
    ['not', 'good', 'not good']
    >>> grams_of("an", "characters", 3, 4)
    [' an', 'an ', ' an ']
    """
    text = text[:MOST_CHARACTERS].lower()
    if kind == "words":
        words = WORD.findall(text)
        return [" ".join(words[i : i + n]) for n in range(low, high + 1) for i in range(len(words) - n + 1)]
    out: list[str] = []
    for word in text.split():
        padded = f" {word} "
        out += [padded[i : i + n] for n in range(low, high + 1) for i in range(len(padded) - n + 1)]
    return out


def read_grams(places: Mapping[str, int], kind: str, low: int, high: int, texts: Sequence[str]) -> tuple[Any, Any]:
    """Places of the known pieces of each text, int64 of shape (texts, most), and how often each stands there, float32.

    >>> grams, counts = read_grams({"a": 0, "b": 1}, "words", 1, 1, ["a b a c", ""])
    >>> grams.tolist(), counts.tolist()
    ([[0, 1], [-1, -1]], [[2.0, 1.0], [0.0, 0.0]])
    """
    rows = []
    for text in texts:
        counted = Counter(grams_of(text, kind, low, high))
        rows.append([(places[gram], n) for gram, n in counted.items() if gram in places])
    width = max([1, *map(len, rows)])
    grams = np.full((len(rows), width), PADDING, dtype=np.int64)
    counts = np.zeros((len(rows), width), dtype=np.float32)
    for row, found in enumerate(rows):
        if found:
            grams[row, : len(found)], counts[row, : len(found)] = zip(*found, strict=True)
    return grams, counts


def batches(texts: Sequence[str], size: int = MOST_BATCH) -> Iterator[list[int]]:
    """Places of texts of about one length, the shortest first, so that little is filled up.

    >>> list(batches(["long text", "a", "b"], 2))
    [[1, 2], [0]]
    """
    order = sorted(range(len(texts)), key=lambda place: (min(len(texts[place]), MOST_CHARACTERS), place))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def answer_texts(session: Any, readers: Sequence[Read], texts: Sequence[str]) -> dict[str, Any]:
    """Outputs of a graph by name, in the order of the texts; at least one text."""
    names = [output.name for output in session.get_outputs()]
    wanted = {each.name for each in session.get_inputs()}
    out: dict[str, Any] = {}
    for places in batches(texts):
        some = [texts[place] for place in places]
        feed = {name: values for read in readers for name, values in read(some).items() if name in wanted}
        for name, values in zip(names, session.run(None, feed), strict=True):
            if name not in out:
                out[name] = np.empty((len(texts), *values.shape[1:]), dtype=values.dtype)
            out[name][places] = values
    return out
