"""Who may do what with a feature group: laws of roles, in the room itself."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.features.histories import plain_group

from tidemill.core.errors import NotFoundError, OptionError, RoleError
from tidemill.data.features import access
from tidemill.data.features.access import KnownRoles, changed, check_access, grant, readable, roles_of
from tidemill.data.features.registry import list_groups, register, update
from tidemill.data.versions.governance import Role, check_owned
from tidemill.store.workspace import Workspace

ACTORS = ("mia", "ben", "eve", "")


@pytest.fixture
def group(workspace: Workspace) -> str:
    register(workspace, plain_group("user", owner="mia"))
    register(workspace, plain_group("open"))
    return "user"


def allowed(workspace: Workspace, name: str, actor: str, role: Role) -> bool:
    try:
        check_access(workspace, name, actor, role)
    except RoleError:
        return False
    return True


def test_without_roles_a_group_is_open_whoever_owns_it(workspace: Workspace, group: str) -> None:
    assert all(allowed(workspace, group, actor, role) for actor, role in product(ACTORS, Role))


def test_with_roles_each_may_do_what_he_has_and_the_owner_everything(workspace: Workspace, group: str) -> None:
    grant(workspace, group, {"ben": "writer", "*": "reader"})
    may = {actor: [role.value for role in Role if allowed(workspace, group, actor, role)] for actor in ACTORS}
    assert may == {
        "mia": ["reader", "writer", "owner"], "ben": ["reader", "writer"], "eve": ["reader"], "": ["reader"],
    }  # fmt: skip
    grant(workspace, group, {"*": None})
    assert not allowed(workspace, group, "eve", Role.READER)
    grant(workspace, group, {"ben": None})
    assert roles_of(workspace, group) == {}
    assert allowed(workspace, group, "eve", Role.OWNER)  # open again


def test_a_refusal_names_the_role_and_the_owner_and_stands_in_the_audit_log(workspace: Workspace, group: str) -> None:
    grant(workspace, group, {"ben": "reader"}, actor="mia")
    with pytest.raises(RoleError, match=r"ben may not do this.*'owner' is needed.*Ask its owner, mia"):
        check_access(workspace, group, "ben", Role.OWNER)
    entries = [(e.kind, e.actor, dict(e.payload)) for e in access.audit_of(workspace, group)][-2:]
    assert entries == [
        ("feature group roles", "mia", {"roles": {"ben": "reader"}}),
        ("feature group refused", "ben", {"needed": "owner", "held": "reader"}),
    ]


def test_what_may_not_be_read_is_not_listed(workspace: Workspace, group: str) -> None:
    grant(workspace, group, {"ben": "reader"})
    listed = {actor: [g.name for g in readable(workspace, list_groups(workspace), actor)] for actor in ACTORS}
    assert listed == {"mia": ["open", "user"], "ben": ["open", "user"], "eve": ["open"], "": ["open"]}


def test_roles_that_nobody_could_change_again_are_refused(workspace: Workspace, group: str) -> None:
    with pytest.raises(OptionError, match="nobody could change"):
        grant(workspace, "open", {"ben": "writer"})
    grant(workspace, "open", {"ben": "owner"})
    with pytest.raises(OptionError, match="nobody could change"):
        grant(workspace, "open", {"ben": "writer"})
    check_owned("group", "", {})


@pytest.mark.parametrize(("role", "who", "words"), [("king", "ben", "no role 'king'"), ("reader", "", "somebody's")])
def test_a_role_is_one_of_three_and_somebodys(
    workspace: Workspace, group: str, role: str, who: str, words: str
) -> None:
    with pytest.raises(OptionError, match=words):
        grant(workspace, group, {who: role})
    with pytest.raises(NotFoundError, match="user"):
        grant(workspace, "usr", {"ben": "reader"})
    assert roles_of(workspace, group) == {}


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(("a", "b", "*")), st.sampled_from((None, *(r.value for r in Role))), max_size=3
        ),
        max_size=6,
    )
)
def test_changes_of_roles_add_up_as_those_of_a_dictionary(changes: list[dict[str, str | None]]) -> None:
    roles: dict[str, Role] = {}
    said: dict[str, str | None] = {}
    for change in changes:
        roles = changed(roles, change)
        said |= change
    assert {who: role.value for who, role in roles.items()} == {w: r for w, r in said.items() if r is not None}


def test_known_roles_say_what_the_records_say_and_write_a_refusal_down_once(
    workspace: Workspace, group: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "REFRESH_S", 1e9)
    known = KnownRoles(workspace)
    known.check(["user:age", "open", "absent"], "eve")
    grant(workspace, group, {"ben": "reader"})
    known.check(["user"], "eve")  # until they are read anew
    known._look_at = 0.0
    known.check(["user:age"], "ben")
    known.check(["user"], "mia")
    for _ in range(3):
        with pytest.raises(RoleError, match="'user'"):
            known.check(["open", "user:age"], "eve")
    refused = [e.actor for e in access.audit_of(workspace, group) if e.kind == "feature group refused"]
    assert refused == ["eve"]
    update(workspace, group, owner="eve")
    known._look_at = 0.0
    known.check(["user"], "eve")
