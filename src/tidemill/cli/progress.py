"""How a running search shows itself: live on a terminal, plain lines elsewhere, JSON for programs.

On a terminal the curves of nets that are being trained are drawn, too.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tidemill.cli import show

if TYPE_CHECKING:
    from tidemill.search.events import Event
    from tidemill.search.signals import CurvePoint

Listener = Callable[["Event"], None]
_MOST_CURVES = 8
"""So many trainings that are under way are drawn."""


@contextmanager
def progress(*, as_json: bool, quiet: bool) -> Iterator[Listener]:
    """Give a listener for events that suits where the output goes."""
    if quiet:
        yield lambda event: None
    elif as_json:
        yield _print_json
    elif sys.stderr.isatty():
        with _Live() as live:
            yield live.hear
    else:
        yield _Lines().hear


def _print_json(event: Event) -> None:
    if event.kind != "tick":
        show.emit_json_line(event.to_json())


class _State:
    """What there is to know about a search at a moment."""

    def __init__(self) -> None:
        self.begin = time.monotonic()
        self.last: Event | None = None
        self.heard_at = self.begin
        self.running = ""
        self.values: list[float] = []
        self.curves: dict[str, list[CurvePoint]] = {}
        self.finished = self.failed = 0
        self.best: tuple[str, float, str | None] | None = None

    def hear(self, event: Event) -> None:
        self.last, self.heard_at = event, time.monotonic()
        # Stages before and after the search know nothing of its trials: what was heard before still holds.
        self.finished, self.failed = max(self.finished, event.finished), max(self.failed, event.failed)
        if event.best is not None:
            self.best = (event.metric, event.best, event.best_trial)
        if event.kind == "stage":
            self.running = event.message
        if event.kind == "started" and event.trial is not None:
            self.running = event.trial.name
        if event.kind == "finished" and event.best is not None:
            self.values.append(event.best)
        if event.kind == "paused":
            self.values.extend(_score_of(event))
        self._follow(event)

    def _follow(self, event: Event) -> None:
        """Keep the curves of what is being trained."""
        if event.trial is None:
            return
        if event.kind == "point" and event.point is not None:
            self.curves.setdefault(event.trial.name, []).append(event.point)
        elif event.kind in ("finished", "paused", "failed"):
            self.curves.pop(event.trial.name, None)

    def time_left(self) -> str:
        now = time.monotonic()
        if self.last is None or self.last.left_s is None:
            return f"{show.duration(now - self.begin)} gone"
        return f"{show.duration(max(0.0, self.last.left_s - (now - self.heard_at)))} left"

    def best_in_words(self) -> str:
        if self.best is None:
            return ""
        metric, value, trial = self.best
        return f"best {metric} {show.number(value)} ({trial})"


def _score_of(event: Event) -> list[float]:
    """The metric of the trial that an event is about, where it has one."""
    score = None if event.trial is None else event.trial.scores.get(event.metric)
    return [] if score is None else [score]


def _on_rung(scores: Mapping[str, float]) -> str:
    """Where a trial paused, by its scores.

    Examples
    --------
    >>> _on_rung({"valid@3": 0.5, "valid@9": 0.25, "accuracy": 0.25})
    ' after 9 epochs'
    """
    rungs = [int(name.removeprefix("valid@")) for name in scores if name.startswith("valid@")]
    return f" after {max(rungs)} epochs" if rungs else ""


class _Lines:
    """One plain line for each thing that happened."""

    def __init__(self) -> None:
        self._state = _State()

    def hear(self, event: Event) -> None:
        self._state.hear(event)
        text = self._text(event)
        if text:
            print(f"[{event.elapsed_s:6.1f} s] {text}", file=sys.stderr, flush=True)

    def _text(self, event: Event) -> str:
        if event.kind == "stage":
            return f"{event.stage}: {event.message}" if event.message else event.stage
        if event.kind == "notice":
            return event.message
        if event.trial is None or event.kind in ("started", "point"):
            return ""
        shown = "".join(f" {event.metric} {show.number(score)}" for score in _score_of(event))
        if event.kind == "finished":
            return f"{event.trial.name}{shown} · {self._state.best_in_words()}, {self._state.time_left()}"
        if event.kind == "paused" and event.trial.error is None:
            where = _on_rung(event.trial.scores)
            return f"{event.trial.name}{shown} · paused{where}, {self._state.time_left()}"
        return f"{event.trial.name} {event.kind}: {event.trial.error or event.message}"


class _Live:
    """A small display that is redrawn in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._state = _State()
        self._console = Console(stderr=True)
        self._live = Live(get_renderable=self._draw, console=self._console, refresh_per_second=4, transient=True)

    def __enter__(self) -> _Live:
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.stop()

    def hear(self, event: Event) -> None:
        self._state.hear(event)
        if event.kind == "notice" and event.message:
            self._console.print(event.message, highlight=False, markup=False)

    def _draw(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        state, event = self._state, self._state.last
        grid = Table.grid(padding=(0, 2))
        if event is None:
            grid.add_row("starting", state.time_left())
            return grid
        grid.add_row(
            Text(event.stage, style="bold"), f"{state.finished} trials done, {state.failed} failed", state.time_left()
        )
        grid.add_row(Text(state.running), state.best_in_words(), show.sparkline(state.values))
        for name, curve in list(state.curves.items())[-_MOST_CURVES:]:
            last = curve[-1]
            at = f"epoch {last.epoch:.3g}: {show.number(last.value)}"
            grid.add_row(Text(name), at, show.sparkline([point.value for point in curve]))
        return grid
