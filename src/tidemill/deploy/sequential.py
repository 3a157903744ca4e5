"""Tests that may be looked at after every request: always-valid evidence about shares.

A test of a fixed size that is looked at again and again finds something sooner or later, though nothing is there. The
evidence here is an *e-process*: if the null is true, the chance that it *ever* reaches 1/alpha is at most alpha,
whatever the moments at which it is looked at, and whoever decides to look (Ville's inequality).

Both functions divide the likelihood under a mixture of alternatives by the largest likelihood under the null. The
mixture over a beta distribution is the mixture sequential probability ratio test of Robbins (1970) and of Johari,
Koomen, Pekelis and Walsh (2017); its inversion, `interval`, is a confidence sequence in the sense of Howard, Ramdas,
McAuliffe and Sekhon (2021); dividing by the supremum over a composite null is universal inference of Wasserman, Ramdas
and Balakrishnan (2020). For independent binary data the guarantee is exact, not asymptotic. Everything else is brought
to shares: latency as the share of slow answers, drift as the share of each label.
"""

from __future__ import annotations

from math import exp, inf, lgamma, log

_JEFFREYS = (0.5, 0.5)
_HALVINGS = 60


def evidence_of_excess(
    bad_new: int, n_new: int, bad_old: int, n_old: int, margin: float = 0.0, history: tuple[int, int] = (0, 0)
) -> float:
    """Natural logarithm of the evidence that the new share is larger than the old one plus a margin.

    Parameters
    ----------
    bad_new, n_new : int
        Bad answers of the new revision, and all of its answers.
    bad_old, n_old : int
        Those of the old one, from the same time.
    margin : float
        Excess that is tolerated, in [0, 1).
    history : tuple of int
        Bad answers and all answers of the old revision from *before*: they sharpen the test where the old share stayed
        as it was, and do not harm its guarantee where it did not.

    Returns
    -------
    float
        At most `log(1/alpha)` for ever with probability 1 - alpha, if the new share is not larger.

    Examples
    --------
    >>> evidence_of_excess(0, 100, 0, 1000) < 0
    True
    >>> evidence_of_excess(20, 100, 10, 1000) > log(1000)
    True
    """
    new, old = (bad_new, n_new - bad_new), (bad_old, n_old - bad_old)
    null = _largest_under_null(new, old, margin)
    alternative = _mixture(new) + _mixture(old)
    if history[1]:
        informed = (0.5 + history[0], 0.5 + history[1] - history[0])
        # Half of the bet on the old share being as it was: costs log 2 at most where it is not.
        alternative = _mean_of_logs(alternative, _mixture(new) + _mixture(old, informed))
    return alternative - null


def evidence_above(bad: int, n: int, limit: float) -> float:
    """Natural logarithm of the evidence that a share is larger than a limit in (0, 1).

    Examples
    --------
    >>> evidence_above(5, 100, 0.1) < 0 < evidence_above(40, 100, 0.1)
    True
    """
    counts = (bad, n - bad)
    top = bad / n if n else 0.0
    return _mixture(counts) - _likelihood(counts, min(top, limit))


def interval(bad: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Confidence sequence of a share: holds at all times at once with probability 1 - alpha.

    Examples
    --------
    >>> low, high = interval(50, 100)
    >>> 0.33 < low < 0.4 < 0.6 < high < 0.67
    True
    >>> interval(0, 0)
    (0.0, 1.0)
    """
    if not n:
        return 0.0, 1.0
    counts, bar = (bad, n - bad), log(1 / alpha)
    top, mixture = bad / n, _mixture((bad, n - bad))

    def inside(share: float) -> bool:
        return mixture - _likelihood(counts, share) < bar

    def edge(outer: float) -> float:
        near, far = top, outer
        if inside(far):
            return far
        for _ in range(_HALVINGS):
            middle = (near + far) / 2
            near, far = (middle, far) if inside(middle) else (near, middle)
        return far

    return edge(0.0), edge(1.0)


def chance(evidence: float) -> float:
    """Bound on the chance of so much evidence where there is nothing: an always-valid p-value.

    Examples
    --------
    >>> chance(0.0), round(chance(log(200)), 6)
    (1.0, 0.005)
    """
    return min(1.0, exp(-evidence))


def _mixture(counts: tuple[int, int], prior: tuple[float, float] = _JEFFREYS) -> float:
    """Log likelihood of a sequence, averaged over a beta prior of its share."""
    (bad, good), (a, b) = counts, prior
    return _log_beta(a + bad, b + good) - _log_beta(a, b)


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)


def _likelihood(counts: tuple[int, int], share: float) -> float:
    bad, good = counts
    return _times_log(bad, share) + _times_log(good, 1 - share)


def _times_log(count: int, share: float) -> float:
    if not count:
        return 0.0
    return count * log(share) if share > 0 else -inf


def _largest_under_null(new: tuple[int, int], old: tuple[int, int], margin: float) -> float:
    """Largest log likelihood where the new share is at most the old one plus the margin."""
    n_new, n_old = sum(new), sum(old)
    top_new = new[0] / n_new if n_new else 0.0
    top_old = old[0] / n_old if n_old else 1.0
    if top_new <= top_old + margin:
        return _likelihood(new, top_new) + _likelihood(old, top_old)
    if not margin:
        pooled = (new[0] + old[0]) / (n_new + n_old)
        return _likelihood(new, pooled) + _likelihood(old, pooled)
    # On the border the sum is concave in the old share, between the two that each side would choose alone.
    low, high = max(0.0, min(top_old, top_new - margin)), min(1 - margin, max(top_old, top_new - margin))
    for _ in range(_HALVINGS):
        share = (low + high) / 2
        slope = _slope(new, share + margin) + _slope(old, share)
        low, high = (share, high) if slope > 0 else (low, share)
    share = (low + high) / 2
    return _likelihood(new, share + margin) + _likelihood(old, share)


def _slope(counts: tuple[int, int], share: float) -> float:
    bad, good = counts
    up = bad / share if share > 0 else (inf if bad else 0.0)
    down = good / (1 - share) if share < 1 else (inf if good else 0.0)
    return up - down


def _mean_of_logs(a: float, b: float) -> float:
    """log((e^a + e^b) / 2)."""
    high, low = max(a, b), min(a, b)
    return high + log((1 + exp(low - high)) / 2)
