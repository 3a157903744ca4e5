"""What the workers of nets are given on a cluster."""

from __future__ import annotations

import pytest
from tests.jobs.ray.conftest import FakeNode, FakeRay, fake_ray  # noqa: F401  a fixture that is used here

from tidemill.core.budget import Budget
from tidemill.jobs.executors.ray.cluster import Cluster
from tidemill.search.images.executor import on_cluster
from tidemill.search.settings import SearchSettings


@pytest.mark.parametrize(("device", "gpus", "workers"), [("auto", 1, 1), ("cpu", 0, 3)])
def test_processors_that_were_asked_for_leave_gpus_to_others(
    fake_ray: FakeRay,  # noqa: F811  the fixture
    device: str,
    gpus: int,
    workers: int,
) -> None:
    fake_ray.cluster[:] = [FakeNode("here", 1), FakeNode("there", 2, gpus=1)]
    cluster = Cluster(fake_ray, owned=False)  # type: ignore[arg-type]  # it has the face of one
    with on_cluster(cluster, Budget(device=device), SearchSettings(), ()):
        assert len(fake_ray.actors) == workers
        assert {actor.options["num_gpus"] for actor in fake_ray.actors} == {gpus}
