"""Writes the report: one HTML file that needs nothing else, for the domain expert first and the engineer after."""

from __future__ import annotations

import os
import secrets
from importlib import resources
from pathlib import Path

from tidemill.core.errors import OptionError
from tidemill.core.task import TaskKind
from tidemill.report._clock import Clock
from tidemill.report.analysis import Analysis, analyse
from tidemill.report.blocks import Section
from tidemill.report.facts import ReportFacts
from tidemill.report.figures._base import COLOURS, Easel
from tidemill.report.sections import answer, classes, closing, columns, labels, lines, overview, values
from tidemill.report.words import quoted

_LIGHT = ("#2b5f9e", "#c4591b", "#2f7d4f", "#8a4fa3", "#b8860b", "#b03a5b", "#2a8b98", "#6b6b2a", "#7a5c44", "#5a6472")
_DARK = ("#7fb0ea", "#f0955a", "#79c796", "#c79be0", "#e2bd5a", "#ee86a4", "#73cbd6", "#c4c46c", "#c9a58a", "#a9b4c2")


def write_report(facts: ReportFacts, path: str | Path) -> Path:
    """Write the report of a candidate.

    One file, below 3 MB, without scripts and without anything from the network. Resampling follows ``facts.seed``;
    how much of it is done depends on ``facts.deadline`` and the machine, so that intervals may differ in their last
    digits from run to run.

    Parameters
    ----------
    facts : ReportFacts
        All that it shows.
    path : path
        The file; its folder is made if need be, and a file of that name is replaced whole.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    DataError
        Where scores or targets of the evidence are NaN or infinite, or their shapes differ.
    OptionError
        Where the file can't be written.

    Examples
    --------
    >>> write_report(facts, "report.html")  # doctest: +SKIP
    PosixPath('report.html')
    """
    text = render(analyse(facts, Clock(facts.deadline)))
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, text.encode("utf-8", errors="replace"))
    except OSError as error:
        raise OptionError(f"The report can't be written ({error.strerror}).", where=str(target)) from error
    return target


def _replace(target: Path, data: bytes) -> None:
    """Write beside the target, then put it in its place, so that nobody sees half a report."""
    beside = target.with_name(f".{target.name[:40]}.{secrets.token_hex(6)}")
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def sections_of(analysis: Analysis, easel: Easel) -> list[Section]:
    """Build all sections in reading order."""
    out = [
        answer.answer(analysis),
        overview.done(analysis),
        overview.headline(analysis),
        overview.leaderboard(analysis),
        overview.pareto(analysis, easel),
        overview.progress(analysis, easel),
    ]
    learned = overview.curves(analysis, easel)
    out += [learned] if learned is not None else []
    if analysis.evidence is not None and analysis.facts.task.kind is TaskKind.MULTILABEL:
        out.append(labels.by_label(analysis))
    elif analysis.evidence is not None and analysis.decisions is not None:
        out += [
            classes.ranking(analysis, easel),
            classes.decisions(analysis, easel),
            classes.calibration(analysis, easel),
        ]
    elif analysis.evidence is not None and analysis.facts.task.kind is TaskKind.RECOGNITION:
        out += [lines.worst(analysis), lines.characters(analysis)]
    elif analysis.evidence is not None:
        out += [values.predictions(analysis, easel), values.errors(analysis, easel)]
    return [
        *out,
        columns.importance(analysis, easel),
        columns.dependence(analysis, easel),
        columns.slices(analysis),
        closing.checks(analysis),
        closing.constraints(analysis),
        closing.bundle(analysis),
        closing.reproduce(analysis),
    ]


def render(analysis: Analysis) -> str:
    """Draw everything and fill the template."""
    import jinja2
    from markupsafe import Markup

    folder = resources.files("tidemill.report") / "templates"
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8"))
    style = (folder / "report.css").read_text(encoding="utf-8")
    facts = analysis.facts
    return template.render(
        # Both are ours: the style is package data, a drawing is matplotlib's, which escapes the text in it.
        style=Markup(_colours() + style),
        svg=Markup,
        title=f"{facts.study}: {facts.task.target}",
        subtitle=f"Predicting {quoted(facts.task.target)} · {facts.task.kind.value} · {facts.objective}",
        hurried=analysis.hurried,
        sections=sections_of(analysis, Easel()),
    )


def _colours() -> str:
    def variables(colours: tuple[str, ...]) -> str:
        return "".join(f"--c{i}:{c};" for i, c in enumerate(colours[: len(COLOURS)]))

    return (
        f":root{{{variables(_LIGHT)}}}\n@media screen and (prefers-color-scheme:dark){{:root{{{variables(_DARK)}}}}}\n"
    )
