"""A key lets in whom it should, as often as it should, and its secret is nowhere."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.deploy.conftest import FakeClock

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.deploy.audit import read_audit
from tidemill.deploy.keyring import KeyRing
from tidemill.deploy.keys import SCOPES, USAGE, AccessError, Keys, find_key, token_hash
from tidemill.store.workspace import Workspace


@pytest.fixture
def keys(workspace: Workspace, clock: FakeClock) -> Keys:
    return Keys(workspace.records, workspace.journal, actor="test", clock=clock)


@pytest.fixture
def ring(workspace: Workspace, clock: FakeClock) -> KeyRing:
    return KeyRing(workspace.records, clock=clock)


def status(ring: KeyRing, token: str | None, scope: str = "predict", endpoint: str = "fraud") -> int:
    """200 where the ring lets the request through, else the status of its refusal."""
    try:
        ring.authorise(token, scope, endpoint)
    except AccessError as error:
        return error.status
    return 200


def test_a_key_works_for_its_scopes_and_endpoints_alone(keys: Keys, ring: KeyRing) -> None:
    _, token = keys.create("shop", ["predict", "feedback"], endpoints=["fraud"])
    ring.refresh()
    assert status(ring, token) == 200
    assert status(ring, token, "feedback") == 200
    assert status(ring, token, "deploy") == 403
    assert status(ring, token, "predict", "churn") == 403
    assert status(ring, token, "predict", "") == 403


def test_a_key_for_deploy_opens_the_data_and_a_key_for_data_nothing_else(keys: Keys, ring: KeyRing) -> None:
    tokens = {scope: keys.create(scope, [scope])[1] for scope in ("deploy", "data")}
    ring.refresh()
    assert [status(ring, tokens["deploy"], scope, "") for scope in SCOPES] == [
        200 if scope in ("deploy", "data") else 403 for scope in SCOPES
    ]
    assert [scope for scope in SCOPES if status(ring, tokens["data"], scope, "") == 200] == ["data"]


def test_admin_may_do_everything(keys: Keys, ring: KeyRing) -> None:
    _, token = keys.create("me", ["admin"])
    ring.refresh()
    assert [status(ring, token, scope) for scope in SCOPES] == [200] * len(SCOPES)


def test_the_secret_is_stored_nowhere(keys: Keys, workspace: Workspace) -> None:
    key, token = keys.create("shop")
    secret = token.split("_", 2)[2]
    assert len(secret) == 43  # 32 bytes
    stored = b"".join(p.read_bytes() for p in Path(workspace.path).rglob("*") if p.is_file())
    assert secret.encode() not in stored
    assert key.hash.encode() in stored
    assert key.hash not in json.dumps(read_audit(workspace.journal))


def test_strangers_are_told_apart_from_nobody(keys: Keys, ring: KeyRing) -> None:
    _key, token = keys.create("shop")
    ring.refresh()
    for wrong in (None, "", "nonsense", token + "x", token[:-1] + ("A" if token[-1] != "A" else "B"), "tm_" + "0" * 56):
        assert status(ring, wrong) == 401
    assert status(ring, f"tm_{'0' * 12}_{token.split('_', 2)[2]}") == 401


def test_a_revoked_key_ends_with_the_next_look(keys: Keys, ring: KeyRing) -> None:
    key, token = keys.create("shop")
    ring.refresh()
    assert status(ring, token) == 200
    keys.revoke("shop")
    ring.refresh()
    assert status(ring, token) == 401
    assert keys.revoke(key.id).revoked_at == keys.all()[0].revoked_at


def test_a_revoked_key_ends_by_itself_within_a_second(keys: Keys, workspace: Workspace) -> None:
    ring = KeyRing(workspace.records).start()
    try:
        _, token = Keys(workspace.records, workspace.journal).create("shop")
        deadline = time.monotonic() + 60
        while status(ring, token) != 200 and time.monotonic() < deadline:
            time.sleep(0.02)
        keys.revoke("shop")
        while status(ring, token) != 401 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert status(ring, token) == 401
    finally:
        ring.close()


def test_an_expired_key_is_void(keys: Keys, ring: KeyRing, clock: FakeClock) -> None:
    _, token = keys.create("shop", expires_s=60)
    ring.refresh()
    clock.go(59)
    assert status(ring, token) == 200
    clock.go(1)
    assert status(ring, token) == 401


def test_a_rate_lets_a_burst_through_and_then_its_measure(keys: Keys, ring: KeyRing, clock: FakeClock) -> None:
    _, token = keys.create("shop", rate=2, burst=5)
    ring.refresh()
    assert [status(ring, token) for _ in range(7)] == [200] * 5 + [429] * 2
    with pytest.raises(AccessError) as told:
        ring.authorise(token, "predict", "fraud")
    assert told.value.retry_after_s == pytest.approx(0.5)
    clock.go(0.5)
    assert [status(ring, token) for _ in range(2)] == [200, 429]


@given(waits=st.lists(st.floats(-5, 5), min_size=1, max_size=60), rate=st.floats(0.5, 20), burst=st.integers(1, 10))
def test_never_more_than_burst_and_rate_allow(waits: list[float], rate: float, burst: int) -> None:
    """Whatever the clock does: forwards, backwards, standing still."""
    ring, clock = KeyRing.__new__(KeyRing), FakeClock(1000.0)
    ring._buckets, ring._share = {}, 1.0
    from tidemill.deploy.keys import Key

    key = Key("k", "k", "h", ("predict",), rate=rate, burst=burst)
    passed, forwards = 0, 0.0
    for wait in waits:
        clock.go(wait)
        forwards += max(0.0, wait)
        try:
            ring._take(key, clock())
            passed += 1
        except AccessError:
            pass
    assert passed <= burst + rate * forwards + 1e-6


def test_fronts_share_a_rate(keys: Keys, workspace: Workspace, clock: FakeClock) -> None:
    _, token = keys.create("shop", rate=10, burst=10)
    rings = [KeyRing(workspace.records, fronts=2, clock=clock) for _ in range(2)]
    assert sum(status(ring, token) == 200 for ring in rings for _ in range(20)) == 10


def test_a_quota_is_kept_over_fronts_and_restarts(keys: Keys, workspace: Workspace, clock: FakeClock) -> None:
    key, token = keys.create("shop", quota=10, period="day")
    one = KeyRing(workspace.records, clock=clock)
    assert [status(one, token) for _ in range(6)] == [200] * 6
    one.close()
    assert keys.used()[key.id] == 6
    two, three = KeyRing(workspace.records, clock=clock), KeyRing(workspace.records, clock=clock)
    assert [status(two, token) for _ in range(3)] == [200] * 3
    two.refresh()
    three.refresh()
    assert [status(three, token) for _ in range(2)] == [200, 429]
    three.refresh()
    two.refresh()
    with pytest.raises(AccessError, match="10 requests of this day") as told:
        two.authorise(token, "predict", "fraud")
    assert 0 < (told.value.retry_after_s or 0) <= 86_400


def test_a_new_period_begins_anew_and_old_counts_are_removed(
    keys: Keys, workspace: Workspace, clock: FakeClock
) -> None:
    _, token = keys.create("shop", quota=1, period="hour")
    ring = KeyRing(workspace.records, clock=clock)
    for _ in range(4):
        assert [status(ring, token) for _ in range(2)] == [200, 429]
        ring.refresh()
        clock.go(3600)
    ring.refresh()
    assert len(workspace.records.find(USAGE)) <= 2


def test_a_refused_request_does_not_count(keys: Keys, workspace: Workspace, clock: FakeClock) -> None:
    key, token = keys.create("shop", rate=1, burst=1, quota=100)
    ring = KeyRing(workspace.records, clock=clock)
    assert [status(ring, token) for _ in range(5)] == [200, 429, 429, 429, 429]
    ring.refresh()
    assert keys.used()[key.id] == 1


def test_creating_and_revoking_are_in_the_log(keys: Keys, workspace: Workspace) -> None:
    key, _ = keys.create("shop")
    keys.revoke(key.id)
    lines = read_audit(workspace.journal, subject=key.id)
    assert [(line["what"], line["actor"]) for line in lines] == [("key_create", "test"), ("key_revoke", "test")]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": " "}, "name"),
        ({"scopes": []}, "needs a scope"),
        ({"scopes": ["predcit"]}, "Did you mean 'predict'"),
        ({"endpoints": ["a b"]}, "endpoint's name"),
        ({"period": "year"}, "no period 'year'"),
        ({"rate": -1}, "rate must be"),
        ({"rate": float("nan")}, "rate must be"),
        ({"quota": -5}, "quota must be"),
    ],
)
def test_wrong_words_are_refused(keys: Keys, values: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        keys.create(**{"name": "shop", **values})  # type: ignore[arg-type]
    assert keys.all() == []


def test_an_unknown_key_can_not_be_revoked_and_a_name_of_two_must_be_told(keys: Keys) -> None:
    with pytest.raises(NotFoundError):
        keys.revoke("shop")
    keys.create("shop")
    keys.create("shop")
    with pytest.raises(OptionError, match="2 keys are called 'shop'"):
        keys.revoke("shop")


def test_the_hash_is_of_the_whole_token(keys: Keys) -> None:
    key, token = keys.create("shop")
    assert token_hash(token) == key.hash
    assert find_key({key.id: key}, token) is key


def test_a_clock_that_jumps_gives_no_second_burst_and_takes_none_away(
    keys: Keys, workspace: Workspace, clock: FakeClock
) -> None:
    _, token = keys.create("shop", rate=2, burst=3)
    steady = FakeClock(7.0)
    ring = KeyRing(workspace.records, clock=clock, steady=steady)
    assert [status(ring, token) for _ in range(4)] == [200, 200, 200, 429]
    for jump in (86_400.0, -200_000.0):
        clock.go(jump)
        assert status(ring, token) == 429
    steady.go(0.5)
    assert [status(ring, token) for _ in range(2)] == [200, 429]
