"""Where a training ends and pauses."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tidemill.train.course import Course, course_of
from tidemill.train.schedule import bent
from tidemill.train.types import Limits, Recipe


def test_it_is_lengthened_to_no_less_than_the_recipe() -> None:
    recipe = Recipe(epochs=4.0, batch=10)
    assert course_of(recipe, Limits(), 100) == Course(40, pause=40, most=40)
    assert course_of(recipe, Limits(longest=2.0), 100).most == 40
    assert course_of(recipe, Limits(longest=6.0), 100).most == 60
    assert course_of(recipe, Limits(epochs=9.0), 100).pause == 40


def test_what_pauses_halts_before_its_end() -> None:
    pausing, whole = Course(40, pause=10, most=40), Course(40, pause=40, most=90)
    bend = bent(None, 8, 40, 70)
    assert (pausing.pauses, pausing.halt(None)) == (True, 10)
    assert (whole.pauses, whole.halt(None), whole.halt(bend)) == (False, 40, 70)
    assert pausing.halt(bent(None, 4, 40, 9)) == 9


@given(st.integers(1, 1000), st.data())
def test_whatever_its_end_a_schedule_is_gone_through_once_and_forwards(steps: int, more: st.DataObject) -> None:
    course = Course(steps, steps, steps)
    since = more.draw(st.integers(0, steps - 1))
    bend = bent(None, since, steps, more.draw(st.integers(since + 1, 5 * steps)))
    places = [course.place(bend, step) for step in range(since, bend.end + 1)]
    assert all(later > earlier for earlier, later in pairwise(places))
    assert abs(places[0] - since) < 1e-9
    assert abs(course.through(bend, bend.end) - 1.0) < 1e-9
    assert all(0.0 <= course.through(bend, step) <= 1.0 for step in range(since, bend.end + 1))
