"""A workspace is found, made, configured and refused as its documentation says."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tidemill.core.errors import OptionError, WorkspaceError
from tidemill.store.artifacts import LocalArtifactStore
from tidemill.store.fsspec_artifacts import FsspecArtifactStore
from tidemill.store.workspace import Workspace
from tidemill.testing.metadata_store import example_study

NOBODY = 65534


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TIDEMILL_WORKSPACE", "TIDEMILL_DATABASE_URL", "TIDEMILL_ARTIFACT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Give up root's right to write everywhere, where we have it."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Give a folder that everyone may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def test_the_default_is_a_folder_here(tmp_path: Path) -> None:
    with Workspace.open() as workspace:
        assert workspace.path == tmp_path / ".tidemill"
        assert (tmp_path / ".tidemill" / "metadata.db").is_file()
        assert repr(workspace) == f"Workspace({str(tmp_path / '.tidemill')!r})"


def test_the_environment_comes_before_the_default_and_an_argument_before_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEMILL_WORKSPACE", str(tmp_path / "b"))
    with Workspace.open() as workspace:
        assert workspace.path == tmp_path / "b"
    with Workspace.open("c") as workspace:
        assert workspace.path == tmp_path / "c"


def test_what_is_kept_is_there_when_opened_again() -> None:
    with Workspace.open() as workspace:
        workspace.metadata.create_study(example_study())
        key = workspace.artifacts.put(b"weights")
    with Workspace.open() as workspace:
        assert workspace.metadata.get_study("income") == example_study()
        assert workspace.artifacts.get(key) == b"weights"


def test_git_does_not_see_a_workspace(tmp_path: Path) -> None:
    Workspace.open().close()
    assert (tmp_path / ".tidemill" / ".gitignore").read_text(encoding="utf-8") == "*\n"


def test_settings_then_environment_then_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / "tidemill.toml").write_text(
        'database_url = "sqlite:///toml.db"\nartifact_url = "memory://toml"\n[search]\nseed = 1\n', encoding="utf-8"
    )
    with Workspace.open(folder) as workspace:
        assert (folder / "toml.db").is_file()
        assert isinstance(workspace.artifacts, FsspecArtifactStore)
        assert workspace.settings["search"] == {"seed": 1}
    monkeypatch.setenv("TIDEMILL_DATABASE_URL", f"sqlite:///{tmp_path / 'env.db'}")
    monkeypatch.setenv("TIDEMILL_ARTIFACT_URL", str(tmp_path / "env"))
    with Workspace.open(folder) as workspace:
        assert (tmp_path / "env.db").is_file()
        assert isinstance(workspace.artifacts, LocalArtifactStore)
        assert workspace.artifacts.root == tmp_path / "env"
    with Workspace.open(folder, database_url="sqlite:///given.db", artifact_url="file:///given") as workspace:
        assert (folder / "given.db").is_file()
        assert isinstance(workspace.artifacts, LocalArtifactStore)
        assert workspace.artifacts.root == Path("/given")


def test_a_workspace_on_postgres(postgres_url: str) -> None:
    with Workspace.open("w", database_url=postgres_url) as workspace:
        workspace.metadata.create_study(example_study())
    with Workspace.open("another", database_url=postgres_url) as workspace:
        assert workspace.metadata.get_study("income") == example_study()
    assert not Path("w/metadata.db").exists()


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("database_url = ", "can't be read"),
        ("database_url = 3", "must be a text"),
        ('databse_url = "sqlite:///a.db"', "Did you mean 'database_url'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, text: str, match: str) -> None:
    (tmp_path / "tidemill.toml").write_text(text, encoding="utf-8")
    with pytest.raises(OptionError, match=match) as caught:
        Workspace.open(tmp_path)
    assert caught.value.where == str(tmp_path / "tidemill.toml")


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    for path in ("file", "file/deeper"):
        with pytest.raises(WorkspaceError, match="A file stands where") as caught:
            Workspace.open(path)
        assert "--workspace" in str(caught.value)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


def test_a_folder_in_the_place_of_the_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".tidemill" / "metadata.db").mkdir(parents=True)
    with pytest.raises(WorkspaceError, match="A folder stands where the database"):
        Workspace.open()


def test_a_folder_that_cannot_be_made_is_refused(open_folder: Path) -> None:
    open_folder.chmod(0o555)
    with as_nobody(), pytest.raises(WorkspaceError, match="can't be made: Permission denied") as caught:
        Workspace.open(open_folder / "w")
    assert "TIDEMILL_WORKSPACE" in str(caught.value)


def test_a_read_only_folder_is_refused(open_folder: Path) -> None:
    Workspace.open(open_folder).close()
    open_folder.chmod(0o555)
    with as_nobody(), pytest.raises(WorkspaceError, match="read-only") as caught:
        Workspace.open(open_folder)
    assert "--workspace" in str(caught.value)


def test_a_read_only_database_is_refused(open_folder: Path) -> None:
    Workspace.open(open_folder).close()
    open_folder.chmod(0o777)
    (open_folder / "metadata.db").chmod(0o444)
    with as_nobody(), pytest.raises(WorkspaceError, match="read-only"):
        Workspace.open(open_folder)


def test_a_read_only_artifact_folder_is_refused(open_folder: Path) -> None:
    store = LocalArtifactStore(open_folder)
    open_folder.chmod(0o555)
    with as_nobody(), pytest.raises(WorkspaceError, match="can't be written"):
        store.put(b"a")


def test_closing_twice_is_allowed() -> None:
    workspace = Workspace.open()
    workspace.close()
    workspace.close()
