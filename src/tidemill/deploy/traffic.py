"""What may happen to an endpoint, as pure functions from one `Endpoint` to the next.

Two laws hold after each of them: the weights sum to 1 (or there are none), and only ready revisions have one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.deploy.types import Canary, CanaryStep, Endpoint, Revision

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_SLACK = 1e-9


def check_name(name: str) -> str:
    """Refuse what can't be an endpoint's name.

    Examples
    --------
    >>> check_name("fraud-eu_2")
    'fraud-eu_2'
    """
    if not _NAME.fullmatch(name):
        raise OptionError(
            f"An endpoint's name has 1 to 64 letters, digits, '-' and '_', but got {name[:80]!r}.", where="--endpoint"
        )
    return name


def find_revision(endpoint: Endpoint, revision: str) -> Revision:
    """Find a revision by its id, its bundle's hash, or the beginning of one that fits no other.

    Raises
    ------
    NotFoundError
        With the nearest ids.
    """
    found = [r for r in endpoint.revisions if revision and (r.id == revision or r.bundle.startswith(revision))]
    if len(found) == 1:
        return found[0]
    raise NotFoundError.of(f"revision of {endpoint.name!r} named", revision, [r.id for r in endpoint.revisions])


def add_revision(endpoint: Endpoint, revision: Revision) -> Endpoint:
    """Add a revision that is being checked; one that is there already is checked anew unless it is ready."""
    known = {r.id: r for r in endpoint.revisions}
    if revision.id in known and known[revision.id].state == "ready":
        return endpoint
    others = tuple(r for r in endpoint.revisions if r.id != revision.id)
    return replace(endpoint, revisions=(*others, replace(revision, state="checking", reason="")))


def mark_ready(endpoint: Endpoint, revision: str) -> Endpoint:
    """Note that its golden rows passed. The first ready revision of an endpoint gets all of the traffic."""
    if find_revision(endpoint, revision).state == "ready":  # said again by a front that was started again
        return endpoint
    endpoint = _changed(endpoint, revision, state="ready", reason="")
    return endpoint if endpoint.traffic else replace(endpoint, traffic={revision: 1.0})


def mark_refused(endpoint: Endpoint, revision: str, reason: str) -> Endpoint:
    """Note that a revision may not serve. One that has traffic keeps it: it has been proven, and serves now."""
    if endpoint.traffic.get(revision, 0.0) > 0:
        raise OptionError(f"The revision {revision!r} serves traffic; roll back or shift the traffic first.")
    endpoint = _changed(endpoint, revision, state="refused", reason=reason)
    return replace(
        endpoint,
        shadow="" if endpoint.shadow == revision else endpoint.shadow,
        previous="" if endpoint.previous == revision else endpoint.previous,
    )


def set_traffic(endpoint: Endpoint, weights: Mapping[str, float]) -> Endpoint:
    """Set the weights; a canary under way ends. What they mean is proportions: they are scaled to sum to 1.

    Raises
    ------
    OptionError
        For weights that are not positive, or a revision that is not ready.
    """
    clean = {find_revision(endpoint, name).id: float(weight) for name, weight in weights.items()}
    if not all(math.isfinite(w) and w >= 0 for w in clean.values()):
        raise OptionError(f"Weights must be finite and at least 0, but got {dict(weights)}.", where="traffic")
    clean = {name: w for name, w in clean.items() if w > 0}
    whole = math.fsum(clean.values())
    if not clean or not math.isfinite(whole):
        raise OptionError("At least one revision needs a weight above 0.", where="traffic")
    for name in clean:
        _need_ready(endpoint, name)
    traffic = {name: w / whole for name, w in clean.items()}
    return _with_traffic(replace(endpoint, canary=None), {n: w for n, w in traffic.items() if w > 0})


def promote(endpoint: Endpoint, revision: str) -> Endpoint:
    """Give all of the traffic to one revision."""
    return set_traffic(endpoint, {revision: 1.0})


def split(endpoint: Endpoint, revision: str, weight: float) -> Endpoint:
    """Give a share of the traffic to a revision; the others keep their proportions in the rest."""
    if not 0 < weight <= 1:
        raise OptionError(f"A weight must be above 0 and at most 1, but got {weight}.", where="--weight")
    others = {n: w for n, w in endpoint.traffic.items() if n != revision}
    rest = math.fsum(others.values())
    if not others or weight == 1:
        return promote(endpoint, revision)
    return set_traffic(endpoint, {**{n: w / rest * (1 - weight) for n, w in others.items()}, revision: weight})


def start_canary(endpoint: Endpoint, revision: str, steps: tuple[CanaryStep, ...], now: float) -> Endpoint:
    """Begin to shift traffic from the revision that has most of it to another one, at the first step's weight.

    Raises
    ------
    OptionError
        For steps that do not rise to 1, a revision that is not ready or has all of the traffic, and where a canary is
        under way.
    """
    check_steps(steps)
    _need_ready(endpoint, revision)
    if endpoint.canary is not None:
        raise OptionError(
            f"A canary of {endpoint.canary.revision!r} is under way.", hint="Wait for it, or end it with a rollback."
        )
    baseline = main_revision(endpoint)
    if not baseline:
        return promote(endpoint, revision)
    if baseline == revision:
        raise OptionError(f"The revision {revision!r} has the traffic already.")
    canary = Canary(revision, baseline, steps, 0, now, now)
    return _at_step(endpoint, canary)


def step_canary(endpoint: Endpoint, now: float) -> Endpoint:
    """Go to the next step; the last one gives all of the traffic to the new revision, and the canary ends."""
    canary = _canary(endpoint)
    return _at_step(endpoint, replace(canary, step=canary.step + 1, step_at=now))


def stop_canary(endpoint: Endpoint, reason: str) -> Endpoint:
    """Give the traffic back to the baseline, and keep the reason at the new revision."""
    canary = _canary(endpoint)
    back = replace(endpoint, canary=None, traffic={canary.baseline: 1.0}, previous="")
    return _changed(back, canary.revision, reason=reason)


def rollback(endpoint: Endpoint, reason: str, to: str = "") -> Endpoint:
    """Give all of the traffic to the revision before, or to a named one; ends a canary.

    Raises
    ------
    OptionError
        Where there is no ready revision to go to.
    """
    target = find_revision(endpoint, to).id if to else _way_back(endpoint)
    if not target:
        raise OptionError(
            f"The endpoint {endpoint.name!r} has no ready revision to go back to.", hint="Deploy another bundle."
        )
    _need_ready(endpoint, target)
    left = main_revision(endpoint) if endpoint.canary is None else endpoint.canary.revision
    # Not back to what was just left: the next rollback goes further into the past.
    after = replace(_with_traffic(replace(endpoint, canary=None), {target: 1.0}), previous="")
    return _changed(after, left, reason=reason) if left and left != target else after


def set_shadow(endpoint: Endpoint, revision: str) -> Endpoint:
    """Let a ready revision get a copy of the requests; empty ends the shadow."""
    if revision:
        revision = find_revision(endpoint, revision).id
        _need_ready(endpoint, revision)
        if endpoint.traffic.get(revision, 0.0) > 0:
            raise OptionError(f"The revision {revision!r} answers requests itself; it cannot be their shadow, too.")
    return replace(endpoint, shadow=revision)


def drop_revision(endpoint: Endpoint, revision: str) -> Endpoint:
    """Forget a revision that serves nothing.

    Raises
    ------
    OptionError
        Where it has traffic or is in a canary.
    """
    revision = find_revision(endpoint, revision).id
    canary = endpoint.canary
    if endpoint.traffic.get(revision, 0.0) > 0 or (canary and revision in (canary.revision, canary.baseline)):
        raise OptionError(
            f"The revision {revision!r} serves traffic.", hint="Shift the traffic away first, or undeploy the endpoint."
        )
    return replace(
        endpoint,
        revisions=tuple(r for r in endpoint.revisions if r.id != revision),
        previous="" if endpoint.previous == revision else endpoint.previous,
        shadow="" if endpoint.shadow == revision else endpoint.shadow,
    )


def main_revision(endpoint: Endpoint) -> str:
    """Id of the revision that has most of the traffic; empty if there is none.

    Examples
    --------
    >>> main_revision(Endpoint("fraud", traffic={"a": 0.2, "b": 0.8}))
    'b'
    """
    return max(endpoint.traffic, key=lambda n: (endpoint.traffic[n], n), default="")


def check(endpoint: Endpoint) -> None:
    """Refuse an endpoint that breaks a law of this module; called before every write.

    Raises
    ------
    OptionError
        With the law.
    """
    check_name(endpoint.name)
    ready = {r.id for r in endpoint.revisions if r.state == "ready"}
    if endpoint.traffic and abs(math.fsum(endpoint.traffic.values()) - 1) > _SLACK:
        raise OptionError(f"The weights of {endpoint.name!r} do not sum to 1: {dict(endpoint.traffic)}.")
    named = {*endpoint.traffic, *filter(None, (endpoint.shadow, endpoint.previous))}
    if endpoint.canary is not None:
        named |= {endpoint.canary.revision, endpoint.canary.baseline}
    if strangers := sorted(named - ready):
        raise OptionError(f"The revision {strangers[0]!r} of {endpoint.name!r} is not ready.")
    if not 0 <= endpoint.min_replicas <= endpoint.max_replicas or endpoint.max_replicas < 1:
        raise OptionError(
            "`0 <= min_replicas <= max_replicas` and `max_replicas >= 1` must hold, but got "
            f"(min_replicas={endpoint.min_replicas}, max_replicas={endpoint.max_replicas})."
        )
    for name in ("deadline_ms", "target_ms"):
        value = getattr(endpoint, name)
        if not (math.isfinite(value) and value > 0):
            raise OptionError(f"{name} must be above 0, but is {value}.")
    if not endpoint.idle_s >= 0:
        raise OptionError(f"idle_s must be at least 0, but is {endpoint.idle_s}.")


def check_steps(steps: tuple[CanaryStep, ...]) -> None:
    """Refuse steps that do not rise to 1."""
    weights = [s.weight for s in steps]
    rising = all(a < b for a, b in pairwise(weights))
    if not weights or not rising or weights[0] <= 0 or weights[-1] != 1:
        raise OptionError(
            f"The steps of a canary must rise to 1, but got {weights}.", hint="For example 0.01,0.05,0.25,1."
        )
    if any(s.requests < 0 or not s.seconds >= 0 for s in steps):
        raise OptionError("A step's requests and seconds must be at least 0.")


def _at_step(endpoint: Endpoint, canary: Canary) -> Endpoint:
    weight = canary.steps[canary.step].weight
    if weight >= 1:
        traffic = {canary.revision: 1.0}
        return replace(endpoint, canary=None, traffic=traffic, previous=canary.baseline, shadow=_not(endpoint, traffic))
    traffic = {canary.baseline: 1.0 - weight, canary.revision: weight}
    return replace(endpoint, canary=canary, traffic=traffic, previous=canary.baseline, shadow=_not(endpoint, traffic))


def _with_traffic(endpoint: Endpoint, traffic: Mapping[str, float]) -> Endpoint:
    before = main_revision(endpoint)
    after = replace(endpoint, traffic=dict(traffic), shadow=_not(endpoint, traffic))
    return after if before in ("", main_revision(after)) else replace(after, previous=before)


def _not(endpoint: Endpoint, traffic: Mapping[str, float]) -> str:
    """Give the shadow, unless it answers requests itself now."""
    return "" if endpoint.shadow in traffic else endpoint.shadow


def _way_back(endpoint: Endpoint) -> str:
    if endpoint.canary is not None:
        return endpoint.canary.baseline
    if endpoint.previous:
        return endpoint.previous
    now = main_revision(endpoint)
    ready = [r.id for r in endpoint.revisions if r.state == "ready" and r.id != now and not r.reason]
    return ready[-1] if ready else ""


def _canary(endpoint: Endpoint) -> Canary:
    if endpoint.canary is None:
        raise OptionError(f"No canary of {endpoint.name!r} is under way.")
    return endpoint.canary


def _need_ready(endpoint: Endpoint, revision: str) -> None:
    found = find_revision(endpoint, revision)
    if found.state != "ready":
        why = f": {found.reason}" if found.reason else "."
        raise OptionError(f"The revision {found.id!r} of {endpoint.name!r} is not ready but {found.state}{why}")


def _changed(endpoint: Endpoint, revision: str, **values: Any) -> Endpoint:
    find_revision(endpoint, revision)
    return replace(
        endpoint, revisions=tuple(replace(r, **values) if r.id == revision else r for r in endpoint.revisions)
    )
