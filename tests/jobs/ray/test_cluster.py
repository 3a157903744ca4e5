"""A cluster that can't be had is told."""

from __future__ import annotations

import socket
import sys

import pytest
from tests.jobs.ray.conftest import FakeNode, FakeRay

from tidemill.core.errors import MissingExtraError, OptionError
from tidemill.jobs.executors.ray.cluster import Cluster, connect
from tidemill.jobs.executors.ray.executor import RayExecutor


def test_an_absent_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"'ray' is needed to run steps on a cluster.*tidemill\[ray\]"):
        connect()


@pytest.mark.parametrize("address", ["head", "ray://head:10001", ":6379", "head:many", "head:"])
def test_an_address_that_is_none_is_refused(fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(fake_ray, "is_initialized", lambda: False)
    with pytest.raises(OptionError, match=r"--ray-address: .* is not of the form host:port"):
        connect(address)


@pytest.mark.parametrize("by", ["argument", "environment"])
def test_a_head_that_does_not_answer_is_told_at_once(
    fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setattr(fake_ray, "is_initialized", lambda: False)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{one.getsockname()[1]}"  # nobody listens
        monkeypatch.setenv("RAY_ADDRESS", "" if by == "argument" else address)
        with pytest.raises(OptionError, match=rf"--ray-address: No Ray answers at {address} \(Connection refused\)"):
            connect(address if by == "argument" else None)


@pytest.mark.parametrize("error", [ConnectionError("None runs here.\nAnd more."), RuntimeError("Version mismatch")])
def test_what_ray_says_is_told_in_a_line(fake_ray: FakeRay, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def init(address: str, **options: object) -> None:
        assert address == "auto"
        assert "num_cpus" not in options
        raise error

    monkeypatch.setattr(fake_ray, "is_initialized", lambda: False)
    monkeypatch.setattr(fake_ray, "init", init, raising=False)
    with pytest.raises(OptionError, match=r"--ray-address: Ray can't be reached: (None runs here\.|Version mismatch)"):
        connect("auto")


def test_what_is_connected_already_is_used_and_stays(fake_ray: FakeRay) -> None:
    with connect() as cluster:
        assert cluster.node == "here"
    assert fake_ray.is_initialized()


def test_room_is_counted_by_node(fake_cluster: Cluster, fake_ray: FakeRay) -> None:
    fake_ray.cluster += [FakeNode("large", 7, gpus=2), FakeNode("gone", 64, alive=False)]
    assert (fake_cluster.cores, fake_cluster.gpus) == (7, 2)
    assert [fake_cluster.room(threads) for threads in (1, 2, 3, 7, 8)] == [9, 3, 2, 1, 0]
    assert [fake_cluster.room(threads, gpus=1) for threads in (1, 4)] == [2, 1]


def test_a_cluster_without_room_is_told(fake_cluster: Cluster) -> None:
    with pytest.raises(OptionError, match=r"No node of the cluster has room for a worker \(2 cores\)"):
        RayExecutor(fake_cluster, threads=2)
    with pytest.raises(OptionError, match=r"\(1 core, 1 GPU\)"):
        RayExecutor(fake_cluster, gpus=1)


@pytest.mark.parametrize("changes", [{"workers": 0}, {"threads": 0}, {"gpus": -1}])
def test_limits_are_positive(fake_cluster: Cluster, changes: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="at least 1"):
        RayExecutor(fake_cluster, **changes)
