"""The scheduler under a clock of our own: no starvation, fair shares, deadlines kept or refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tidemill.deploy.engine.scheduler import SLICE_SHARE, WEIGHTS, Device, Line, best_batch


@dataclass(eq=False)
class Ask:
    rows: int
    deadline: float
    key: object = None
    alone: bool = False
    name: str = ""


def _line(name: str, row_ms: float, *, bulk: bool = False, most: int = 32, target_ms: float = 100.0) -> Line[Ask]:
    curve = [(b, b * row_ms) for b in (1, 2, 4, 8, 16, 32) if b <= max(most, 2)]  # one alone would be a guess
    line: Line[Ask] = Line(name, bulk, target_ms, curve)
    line.best = most
    return line


def test_the_batch_is_the_smallest_near_the_best_rate() -> None:
    facts = [(1, 1 / 149), (24, 24 / 648), (32, 32 / 686), (64, 64 / 341), (128, 128 / 316)]
    assert best_batch(facts) == 32  # with what each batch costs beside the model
    flat = [(1, 1 / 31.8), (32, 32 / 38.6), (256, 256 / 34.1)]
    assert best_batch(flat) == 32
    assert best_batch(flat, target_ms=1.0) == 1


@pytest.mark.parametrize(("batch_ms", "row_ms", "best"), [(1.0, 0.01, 256), (0.0, 40.0, 1), (0.5, 1.0, 16)])
def test_batches_nobody_measured_grow_as_far_as_that_pays(batch_ms: float, row_ms: float, best: int) -> None:
    now = 0.0
    device: Device[Ask] = Device(lambda: now)
    line: Line[Ask] = Line("a", target_ms=100.0)
    device.add(line)
    for _ in range(4000):
        device.push(line, Ask(1, 1e9))
    batches = 0
    while (turn := device.take(lambda _: True)) is not None:
        batches += 1
        ms = batch_ms + row_ms * len(turn[1])
        now += ms / 1e3
        device.finished(*turn, ms)
    assert line.best == best
    assert batches < 4000 / best + 20


def test_a_measured_size_stays() -> None:
    line: Line[Ask] = Line("a", curve=[(1, 1.0), (8, 2.0)])
    for _ in range(10):
        line.grow(8, 0.1)
    assert line.best == 8
    alone: Line[Ask] = Line("a", together=False)
    alone.grow(1, 0.1)
    assert alone.best == 1


@given(
    st.lists(st.tuples(st.integers(1, 500), st.floats(0.001, 100)), min_size=1, max_size=8, unique_by=lambda p: p[0])
)
def test_a_prediction_lies_on_the_measured_points(curve: list[tuple[int, float]]) -> None:
    line: Line[Ask] = Line("a", curve=curve)
    for batch, ms in curve:
        assert line.predict_ms(batch) == pytest.approx(ms)
    assert line.best in [b for b, _ in curve]


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 5)), min_size=1, max_size=40), st.integers(1, 20))
def test_the_earliest_deadline_goes_first(asks: list[tuple[float, int]], most: int) -> None:
    line = _line("a", 1.0)
    for deadline, rows in asks:
        line.push(Ask(rows, deadline))
    order: list[Ask] = []
    while len(line):
        batch = line.pop(most)
        assert len(batch) == 1 or sum(a.rows for a in batch) <= most
        order += batch
    assert [a.deadline for a in order] == sorted(d for d, _ in asks)
    assert line.waiting_rows == 0


def test_only_equal_shapes_share_a_batch() -> None:
    line = _line("a", 1.0)
    for key in "aabba":
        line.push(Ask(1, 1.0, key))
    assert [[a.key for a in line.pop(8)] for _ in range(3)] == [["a", "a"], ["b", "b"], ["a"]]


def test_who_is_suspected_runs_alone_and_first() -> None:
    line = _line("a", 1.0)
    line.push(Ask(1, 1.0))
    line.push(Ask(1, 2.0, alone=True))
    line.push(Ask(1, 3.0))
    assert [len(line.pop(8)) for _ in range(2)] == [1, 2]


def test_what_cannot_be_in_time_is_not_taken() -> None:
    now = [0.0]
    device: Device[Ask] = Device(lambda: now[0])
    line = _line("a", 10.0)
    device.add(line)
    taken = 0
    while device.admits(line, Ask(1, 0.1)):
        device.push(line, Ask(1, 0.1))
        taken += 1
    assert 1 < taken <= 10


def test_what_is_late_takes_no_room_in_a_batch() -> None:
    line = _line("a", 1.0)
    asks = [Ask(1, deadline) for deadline in (1.0, 5.0, 2.0, 6.0, 0.5)]
    for ask in asks:
        line.push(ask)
    assert [a.deadline for a in line.pop(8, 2.0)] == [2.0, 5.0, 6.0]
    assert sorted(a.deadline for a in line.late) == [0.5, 1.0]
    assert line.waiting_rows == 0


def test_work_goes_on_behind_requests_that_are_all_late() -> None:
    now = [10.0]
    device: Device[Ask] = Device(lambda: now[0])
    line = _line("a", 1.0, most=2)
    device.add(line)
    for _ in range(5):
        device.push(line, Ask(1, 1.0))
    assert device.take(lambda _: True) is None
    assert (len(device.late), line.waiting_rows, line.running) == (5, 0, 0)
    device.push(line, Ask(1, 99.0))
    grant = device.take(lambda _: True)
    assert grant is not None
    assert [a.deadline for a in grant[1]] == [99.0]


def test_a_line_under_load_leaves_time_for_work_that_becomes_twice_as_slow() -> None:
    now = [0.0]
    device: Device[Ask] = Device(lambda: now[0])
    line = _line("a", 10.0, most=1)
    device.add(line)
    taken = 0
    while device.admits(line, Ask(1, 0.2)):
        device.push(line, Ask(1, 0.2))
        taken += 1
    assert taken * 2 * 10.0 <= 200.0
    assert taken >= 5


def test_bulk_goes_in_slices_of_a_quarter_of_the_tightest_target() -> None:
    device: Device[Ask] = Device(lambda: 0.0)
    bulk = _line("bulk", 2.0, bulk=True)
    device.add(bulk)
    assert device.most_rows(bulk) == 32
    for target in (80.0, 40.0):
        device.add(_line("latency", 1.0, target_ms=target))
    assert device.most_rows(bulk) * 2.0 <= SLICE_SHARE * 40.0
    assert device.most_rows(bulk) == 5


class World:
    """A device, its lines and one worker for each, in simulated time: batches end in order of time."""

    def __init__(self, lines: list[Line[Ask]], *, slots: int = 1, interrupts: bool = False) -> None:
        self.now = 0.0
        self.device: Device[Ask] = Device(lambda: self.now, slots=slots, interrupts=interrupts)
        self.lines = lines
        for line in lines:
            self.device.add(line)
        self.running: dict[str, tuple[float, Line[Ask], list[Ask], float]] = {}
        self.done: list[tuple[float, Ask]] = []
        self.row_ms = {line.name: line.row_ms for line in lines}

    def free(self, line: Line[Ask]) -> bool:
        return line.name not in self.running

    def start(self) -> None:
        while (grant := self.device.take(self.free)) is not None:
            line, batch = grant
            ms = sum(a.rows for a in batch) * self.row_ms[line.name]
            begin = max([self.now, *(end for end, *_ in self.running.values())]) if self.device_is_serial else self.now
            self.running[line.name] = (begin + ms / 1e3, line, batch, ms)

    device_is_serial = True

    def step(self) -> bool:
        self.start()
        if not self.running:
            return False
        name = min(self.running, key=lambda n: self.running[n][0])
        end, line, batch, ms = self.running.pop(name)
        self.now = max(self.now, end)
        self.device.finished(line, batch, ms)
        self.done += [(self.now, a) for a in batch]
        return True


@settings(max_examples=20)
@given(st.floats(0.2, 8.0), st.floats(0.2, 8.0), st.booleans())
def test_busy_lines_share_time_by_weight(first_ms: float, second_ms: float, bulk: bool) -> None:
    one, two = _line("one", first_ms, most=1), _line("two", second_ms, bulk=bulk, most=1)
    world = World([one, two])
    for _ in range(300):
        for line in (one, two):
            if not line.waiting_rows:
                world.device.push(line, Ask(1, 1e9))
        world.step()
    share = one.used_ms / WEIGHTS[False], two.used_ms / WEIGHTS[bulk]
    slack = max(first_ms / WEIGHTS[False], second_ms / WEIGHTS[bulk]) * 3
    assert abs(share[0] - share[1]) <= slack


@settings(max_examples=20)
@given(st.integers(1, 4), st.floats(0.5, 3.0))
def test_a_flood_on_one_line_starves_no_other(others: int, ms: float) -> None:
    flood = _line("flood", 1.0, most=4)
    lines = [_line(f"l{k}", ms, bulk=k % 2 == 1, most=4) for k in range(others)]
    world = World([flood, *lines])
    for _ in range(300):
        world.device.push(flood, Ask(1, 1e9))
    for line in lines:
        world.device.push(line, Ask(1, 1e9, name=line.name))
    waited: dict[str, float] = {}
    while len(waited) < others:
        assert world.step()
        waited |= {a.name: at for at, a in world.done if a.name}
    assert max(waited.values()) * 1e3 <= (4.0 * 8 + ms) * (others + 3)


def test_an_idle_line_saves_up_nothing() -> None:
    """A line that slept for long does not then keep all others from the device."""
    one, two = _line("one", 1.0, most=1), _line("two", 1.0, most=1)
    world = World([one, two])
    for _ in range(1000):
        world.device.push(one, Ask(1, 1e9))
        world.step()
    for _ in range(50):
        world.device.push(one, Ask(1, 1e9, name="one"))
        world.device.push(two, Ask(1, 1e9, name="two"))
    world.done.clear()
    for _ in range(40):
        world.step()
    names = [a.name for _, a in world.done]
    assert 15 <= names.count("one") <= 25


class Machine(RuleBasedStateMachine):
    """Whatever comes in whatever order: counters agree with what waits and runs, and everything ends."""

    @initialize(slots=st.integers(1, 3), interrupts=st.booleans())
    def begin(self, slots: int, interrupts: bool) -> None:
        lines = [
            _line("a", 0.5, target_ms=20.0),
            _line("b", 2.0),
            _line("c", 4.0, bulk=True),
            _line("d", 9.0, bulk=True),
        ]
        self.world = World(lines, slots=slots, interrupts=interrupts)
        self.pushed = 0
        self.dropped = 0

    @rule(which=st.integers(0, 3), rows=st.integers(1, 40), in_ms=st.floats(1, 5000), alone=st.booleans())
    def ask(self, which: int, rows: int, in_ms: float, alone: bool) -> None:
        line = self.world.lines[which]
        ask = Ask(rows, self.world.now + in_ms / 1e3, alone=alone)
        if self.world.device.admits(line, ask):
            self.world.device.push(line, ask)
            self.pushed += 1

    @rule(steps=st.integers(1, 5))
    def work(self, steps: int) -> None:
        for _ in range(steps):
            self.world.step()

    @rule(which=st.integers(0, 3))
    def lose(self, which: int) -> None:
        """A worker dies: what it held waits again, alone."""
        line = self.world.lines[which]
        if line.name in self.world.running:
            _, _, batch, _ = self.world.running.pop(line.name)
            self.world.device.finished(line, batch, 0.0, counted=False)
            for ask in batch:
                ask.alone = True
                self.world.device.push(line, ask)

    @rule(which=st.integers(0, 3))
    def late(self, which: int) -> None:
        """The watch over deadlines takes out what nobody came for."""
        self.dropped += len(self.world.lines[which].drop(lambda a: a.deadline < self.world.now))

    @invariant()
    def counters_agree(self) -> None:
        if not hasattr(self, "world"):
            return
        held = 0
        for line in self.world.lines:
            waiting: list[Any] = [*line._alone, *line._fifo, *(e[2] for e in line._early)]
            running = self.world.running.get(line.name, (0, line, [], 0))[2]
            assert line.waiting_rows == sum(a.rows for a in waiting)
            assert line.running_rows == sum(a.rows for a in running)
            assert line.running == (line.name in self.world.running)
            held += len(waiting) + len(running)
        late = self.world.device.late
        assert all(a.deadline < self.world.now for a in late)
        assert held + len(self.world.done) + self.dropped + len(late) == self.pushed

    def teardown(self) -> None:
        if hasattr(self, "world"):
            while self.world.step():
                pass
            assert len(self.world.done) + self.dropped + len(self.world.device.late) == self.pushed


TestMachine = Machine.TestCase
TestMachine.settings = settings(max_examples=30, stateful_step_count=30)
