"""From what nets say of every step along a line to the most probable text: prefix beam search, in numpy alone.

The best path is one way of writing a text; a text is as probable as all its ways together. A graph can hold the best
path; what is searched by beams is searched behind it, where several nets can read a text together, by this code: in
the proof, in `Bundle`, in the shipped ``run.py`` and where a bundle is served.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BLANK = 0
"""Output of a net that stands for no character."""
DECODE = "tidemill.decode"
"""Key of a graph's metadata under which stands how its texts are searched for; absent where the graph says them."""
FRAMES = "log_probabilities"
"""Output of such a graph: what the net says of every step, shape (N, steps, K + 1); of several nets that read together,
shape (N, nets, steps, K + 1)."""
NETS = "nets"
"""Key of what is stated under `DECODE`: how many nets read together, where there are several."""
WEIGHED = 5
"""So many of the texts that each of several nets finds are weighed by all: with twice as many, two read no better."""
Ids = tuple[int, ...]
_NEVER = -np.inf


def handicap(characters: int, margin: float) -> NDArray[np.float32]:
    """What is taken off each output before they are compared, shape (K + 1,)."""
    return (margin * np.arange(characters + 1)).astype(np.float32)


def beams(frames: NDArray[Any], width: int, lengths: Collection[int] = ()) -> list[tuple[Ids, float]]:
    """Search for the most probable sequences of outputs (Graves, 2012, section 7.5.3; Hannun et al., 2014).

    Parameters
    ----------
    frames : ndarray, shape (steps, K + 1)
        Logarithms of probabilities, finite; the first output is the blank.
    width : int
        Prefixes that are followed side by side. One follows the most probable prefix of every step; so many that none
        is dropped give the most probable sequence of all.
    lengths : collection of int
        Only sequences so long are looked for; where none of those that are followed to the end is, the most probable
        one is given. Empty allows all.

    Returns
    -------
    list of (tuple of int, float)
        Outputs without blanks, and the logarithm of the probability that the search has found for them: all of it where
        no prefix was dropped, else a lower bound. At least one, the most probable first.

    Examples
    --------
    >>> p = np.array([[0.6, 0.4], [0.6, 0.4]])  # nothing twice has 0.36, the best path; "a" has 0.64
    >>> [(ids, round(float(np.exp(log)), 2)) for ids, log in beams(np.log(p), 4)]
    [((1,), 0.64), ((), 0.36)]
    >>> beams(np.log(p), 4, lengths=[0])[0][0]
    ()
    """
    most = max(lengths, default=len(frames))
    prefixes: list[Ids] = [()]
    blank: NDArray[np.float64] = np.zeros(1)  # logarithms: that a prefix ends in a blank,
    last: NDArray[np.float64] = np.full(1, _NEVER)  # and that it ends in its last character
    for step in np.asarray(frames, dtype=np.float64):
        place = {prefix: i for i, prefix in enumerate(prefixes)}
        ends = np.array([prefix[-1] if prefix else BLANK for prefix in prefixes])
        some = np.flatnonzero(ends)
        grown = np.logaddexp(blank, last)[:, None] + step
        paused, held = grown[:, BLANK].copy(), last + step[ends]
        grown[:, BLANK] = _NEVER
        grown[some, ends[some]] = blank[some] + step[ends[some]]  # a character that stands twice has a blank between
        for i, prefix in enumerate(prefixes):
            before = place.get(prefix[:-1]) if prefix else None
            if before is not None:  # it grows into one that is followed already
                held[i] = np.logaddexp(held[i], grown[before, prefix[-1]])
                grown[before, prefix[-1]] = _NEVER
        grown[[len(prefix) >= most for prefix in prefixes]] = _NEVER
        best = _largest(np.concatenate([np.logaddexp(paused, held), grown.ravel()]), width)
        last = np.concatenate([held, grown.ravel()])[best]
        blank = np.concatenate([paused, np.full(grown.size, _NEVER)])[best]
        prefixes = [_named(prefixes, int(i), len(step)) for i in best]
    chosen = [i for i, prefix in enumerate(prefixes) if not lengths or len(prefix) in lengths] or [0]
    return [(prefixes[i], float(np.logaddexp(blank[i], last[i]))) for i in chosen]


def _largest(values: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Places of the largest values, largest first; of equal ones the first."""
    found: NDArray[Any] = np.arange(len(values))
    if count < len(values):
        found = np.argpartition(-values, count)[:count]
    found = found[values[found] > _NEVER]
    return np.asarray(found[np.lexsort((found, -values[found]))], dtype=np.int64)


def _named(prefixes: list[Ids], place: int, outputs: int) -> Ids:
    """The prefix at a place: those that are followed, then each of them with each output behind it."""
    if place < len(prefixes):
        return prefixes[place]
    before, output = divmod(place - len(prefixes), outputs)
    return (*prefixes[before], output)


def probabilities(frames: NDArray[Any], texts: Sequence[Ids]) -> NDArray[np.float64]:
    """Logarithms of the probabilities of sequences: all ways to write each together (Graves et al., 2006).

    Parameters
    ----------
    frames : ndarray, shape (steps, K + 1)
        As `beams` takes them.
    texts : sequence of tuple of int
        Outputs without blanks.

    Examples
    --------
    >>> np.exp(probabilities(np.log([[0.6, 0.4], [0.6, 0.4]]), [(1,), (), (1, 1)])).round(2)
    array([0.64, 0.36, 0.  ])
    """
    most = max(map(len, texts), default=0)
    states = np.full((len(texts), 2 * most + 1), BLANK)
    for row, text in enumerate(texts):
        states[row, 1 : 2 * len(text) : 2] = text
    apart = np.zeros(states.shape, dtype=np.bool_)  # may be reached over the blank before it
    apart[:, 3::2] = states[:, 3::2] != states[:, 1:-2:2]
    now: NDArray[np.float64] = np.full(states.shape, _NEVER)
    for number, step in enumerate(np.asarray(frames, dtype=np.float64)):
        if number:
            before = now.copy()
            now[:, 1:] = np.logaddexp(now[:, 1:], before[:, :-1])
            now[:, 2:] = np.where(apart[:, 2:], np.logaddexp(now[:, 2:], before[:, :-2]), now[:, 2:])
        else:
            now[:, :2] = 0.0
        now += step[states]
    rows, ends = np.arange(len(texts)), 2 * np.array([len(text) for text in texts], dtype=np.int64)
    without = np.where(ends > 0, now[rows, np.maximum(ends - 1, 0)], _NEVER)
    return np.asarray(np.logaddexp(now[rows, ends], without), dtype=np.float64)


def likeliest(nets: NDArray[Any], width: int, lengths: Collection[int] = ()) -> Ids:
    """Search for the text to which several nets together give most: what each one finds is weighed by all.

    What nets say of single steps can be averaged only where they set their characters alike; what they think of a whole
    text doesn't depend on that. Each has an equal say: the product of their probabilities counts.

    Parameters
    ----------
    nets : ndarray, shape (nets, steps, K + 1)
        What each says, as `beams` takes it.
    width, lengths
        As in `beams`.

    Examples
    --------
    >>> early, late = [[0.1, 0.9], [0.9, 0.1]], [[0.9, 0.1], [0.1, 0.9]]  # the same text, at other places
    >>> likeliest(np.log([early, late]), 4)
    (1,)
    """
    found = [[ids for ids, _ in beams(frames, width, lengths)[:WEIGHED]] for frames in nets]
    if all(texts[0] == found[0][0] for texts in found):  # which no other one can surpass
        return found[0][0]
    texts = proposed(found, lengths)
    return texts[int(np.argmax(np.sum([probabilities(frames, texts) for frames in nets], axis=0)))]


def proposed(found: Sequence[Sequence[Ids]], lengths: Collection[int] = ()) -> list[Ids]:
    """What several nets have found, each text once; those of other lengths only where there are no others."""
    texts = list(dict.fromkeys(ids for several in found for ids in several))
    return [ids for ids in texts if not lengths or len(ids) in lengths] or texts


def read_beams(
    frames: NDArray[Any], alphabet: str, width: int, margin: float, lengths: Collection[int] = ()
) -> tuple[list[str], NDArray[np.float32]]:
    """Search for the texts of lines.

    Parameters
    ----------
    frames : ndarray, shape (n, steps, K + 1) or (n, nets, steps, K + 1)
        Logarithms of probabilities; the first output is the blank. Several nets read together as in `likeliest`.
    alphabet : str
        The K characters.
    width, lengths
        As in `beams`.
    margin : float
        Taken off each output once for each place, so that near ties come out alike wherever they are computed.

    Returns
    -------
    (list of str, ndarray of float32)
        Texts, and the probability of each: all ways to write it together; of several nets, its geometric mean.

    Examples
    --------
    >>> read_beams(np.log([[[0.6, 0.4], [0.6, 0.4]]]), "a", 10, 0.0)
    (['a'], array([0.64], dtype=float32))
    """
    frames = np.asarray(frames, dtype=np.float32)
    lines = frames[:, None] if frames.ndim == 3 else frames
    taken = handicap(len(alphabet), margin)
    found = [likeliest(nets - taken, width, lengths) for nets in lines]
    logs = [np.mean([probabilities(said, [ids])[0] for said in nets]) for nets, ids in zip(lines, found, strict=True)]
    texts = ["".join(alphabet[output - 1] for output in ids) for ids in found]
    return texts, np.exp(np.minimum(0.0, np.array(logs, dtype=np.float64))).astype(np.float32)


class BeamSession:
    """A session of onnxruntime behind whose graph texts are searched for; it is asked as the session itself.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        Of a graph with the output `FRAMES`.
    stated : mapping
        Arguments of `read_beams` but the first: ``alphabet``, ``width``, ``margin``, and ``lengths`` where they are
        known.
    """

    def __init__(self, session: Any, stated: Mapping[str, Any]) -> None:
        self._session = session
        self._alphabet, self._width = str(stated["alphabet"]), int(stated["width"])
        self._margin = float(stated["margin"])
        self._lengths = tuple(int(length) for length in stated.get("lengths", ()))

    def get_inputs(self) -> list[Any]:
        """Inputs of the graph."""
        return list(self._session.get_inputs())

    def get_outputs(self) -> list[Any]:
        """Outputs of the graph, without what the net says of every step."""
        return [output for output in self._session.get_outputs() if output.name != FRAMES]

    def get_modelmeta(self) -> Any:
        """Metadata of the graph."""
        return self._session.get_modelmeta()

    def run(self, names: list[str] | None, feed: Mapping[str, Any]) -> list[Any]:
        """Answers to a batch, in the order of ``names`` or of `get_outputs`."""
        all_names = [output.name for output in self._session.get_outputs()]
        found = self.decoded(dict(zip(all_names, self._session.run(None, feed), strict=True)))
        return [found[name] for name in names or found]

    def decoded(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Put the texts that are found in the place of those of the best path, and their probabilities."""
        texts, sure = read_beams(outputs[FRAMES], self._alphabet, self._width, self._margin, self._lengths)
        known = {"prediction": np.array(texts, dtype=object), "confidence": sure}
        return {name: known.get(name, values) for name, values in outputs.items() if name != FRAMES}


def decoding(session: Any) -> Any:
    """Give a session that answers as its graph's metadata says: itself for most, a `BeamSession` for some."""
    stated = session.get_modelmeta().custom_metadata_map.get(DECODE)
    return session if stated is None else BeamSession(session, json.loads(stated))
