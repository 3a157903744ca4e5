"""Numbers, names and sentences as people read them."""

from __future__ import annotations

import datetime as dt
import math
from typing import Any

LONGEST_LABEL = 28
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)


def number(value: float | None, digits: int = 3) -> str:
    r"""Write a number with so many significant digits, whole ones in full, with a space between thousands.

    Examples
    --------
    >>> number(0.92816), number(1234567), number(1.5e-7), number(None), number(12345.6)
    ('0.928', '1\u202f234\u202f567', '1.5e-07', '–', '12\u202f346')
    """
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-4 or size >= 1e12:
        text = f"{value:.{digits}g}"
    elif size >= 10 ** (digits - 1) or float(value).is_integer():
        text = f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    else:
        text = f"{value:.{max(0, digits - 1 - math.floor(math.log10(size)))}f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    return text.replace("-", "−", 1) if text.startswith("-") else text


def score(value: float | None) -> str:
    r"""Write the value of a metric: always with the same digits, so that columns line up.

    Examples
    --------
    >>> score(0.5), score(1234.5678), score(-0.25)
    ('0.5000', '1\u202f235', '−0.2500')
    """
    if value is None or not math.isfinite(value):
        return number(value)
    if abs(value) < 10 and (abs(value) >= 1e-3 or value == 0):
        return f"{value:.4f}".replace("-", "−")
    return number(value, 4)


def interval(low: float | None, high: float | None) -> str:
    """Write an interval, or a dash where there is none.

    Examples
    --------
    >>> interval(0.1, 0.25), interval(None, None)
    ('0.1000 to 0.2500', '–')
    """
    return "–" if low is None or high is None else f"{score(low)} to {score(high)}"


def percent(share: float) -> str:
    r"""Write a share in per cent, never rounding to all or nothing what is neither.

    Examples
    --------
    >>> percent(0.834), percent(0.9991), percent(1.0), percent(0.0004)
    ('83\xa0%', '99.9\xa0%', '100\xa0%', '0.04\xa0%')
    """
    value = 100 * share
    for digits in (0, 1, 2):
        text = f"{value:.{digits}f}"
        if value in (0, 100) or float(text) not in (0, 100):
            return f"{text}\N{NO-BREAK SPACE}%"
    return f"{'over 99.99' if value > 50 else 'under 0.01'}\N{NO-BREAK SPACE}%"


def count(n: int, noun: str, plural: str | None = None) -> str:
    r"""Write a number of things.

    Examples
    --------
    >>> count(1, "row"), count(2, "study", "studies")
    ('1\xa0row', '2\xa0studies')
    """
    return f"{number(n)}\N{NO-BREAK SPACE}{noun if n == 1 else plural or noun + 's'}"


def seconds(value: float | None) -> str:
    """Write a duration.

    Examples
    --------
    >>> seconds(0.25), seconds(75), seconds(7320)
    ('0.25 s', '1 min 15 s', '2 h 2 min')
    """
    if value is None:
        return "–"
    if value < 60:
        return f"{number(value, 2 if value < 10 else 3)} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def size(value: float | None) -> str:
    """Write an amount of bytes.

    Examples
    --------
    >>> size(512), size(1_500_000)
    ('512 B', '1.5 MB')
    """
    if value is None:
        return "–"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{number(value / scale)} {unit}"
    return f"{number(value)} B"


def date(epoch_s: float) -> str:
    """Write a moment as a date, with the time of day where it isn't midnight.

    Examples
    --------
    >>> date(0.0), date(1.7e9)
    ('1970-01-01', '2023-11-14 22:13')
    """
    try:
        moment = _EPOCH + dt.timedelta(seconds=float(epoch_s))
    except (OverflowError, ValueError):
        return number(epoch_s)
    return moment.strftime("%Y-%m-%d" if moment.time() == dt.time() else "%Y-%m-%d %H:%M")


def label(text: Any, longest: int = LONGEST_LABEL) -> str:
    r"""Make a name fit to be drawn: on one line, printable, not too long.

    Examples
    --------
    >>> label("a" * 40, 8), label("one\ntwo"), label("")
    ('aaaaaaa…', 'one two', '(empty)')
    """
    flat = " ".join(str(text).split()) or "(empty)"
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in flat)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def quoted(text: Any) -> str:
    """Put a name in quotation marks, shortened where it is very long.

    Examples
    --------
    >>> quoted("yes")
    '“yes”'
    """
    return f"“{label(text, 60)}”"


def joined(parts: list[str]) -> str:
    """Join as in a sentence.

    Examples
    --------
    >>> joined(["a"]), joined(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1] if parts else ""


_METRIC_WORDS = {
    "roc_auc": "ROC AUC", "log_loss": "Log loss", "average_precision": "Average precision", "brier": "Brier score",
    "ece": "Calibration error (ECE)", "accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "mcc": "MCC",
    "precision": "Precision", "recall": "Recall", "f1": "F1", "f1_macro": "F1, mean over classes", "rmse": "RMSE",
    "mae": "MAE", "r2": "R²", "rmsle": "RMSLE", "mape": "MAPE", "cost": "Mean cost of a decision",
    "f1_micro": "F1 over all labels", "subset_accuracy": "Rows with all labels right", "hamming_loss": "Hamming loss",
    "lrap": "Label ranking average precision",
    "cer": "Character error rate", "exact": "Whole lines right", "cer_nocase": "Character error rate, any case",
    "exact_nocase": "Whole lines right, any case",
}  # fmt: skip


def metric_words(name: str) -> str:
    """Name a metric for people.

    Examples
    --------
    >>> metric_words("roc_auc"), metric_words("recall[fraud]"), metric_words("pinball@0.9")
    ('ROC AUC', 'Recall of “fraud”', 'pinball@0.9')
    """
    base, _, rest = name.partition("[")
    words = _METRIC_WORDS.get(base, base)
    return f"{words} of {quoted(rest[:-1])}" if rest else words
