"""Two nodes of a local cluster serve one bundle."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidemill.bundle.runtime import Bundle
from tidemill.core.schema import Columns
from tidemill.deploy.types import Endpoint
from tidemill.testing.inference_protocol import InferenceProtocolSuite, ServedBundle

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore"),  # of Ray and what it brings along
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A head and one more node, with one core each."""
    pytest.importorskip("ray.serve")
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        made.add_node(num_cpus=1)
        ray.init(address=made.address, log_to_driver=False)
        yield
    finally:
        ray.shutdown()
        made.shutdown()


@pytest.fixture(scope="module")
def served(cluster: None, bundle_folder: Path, whole_rows: Columns) -> Iterator[ServedBundle]:
    from tidemill.deploy.ray.run import deploy, withdraw

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    server = deploy({"m": bundle_folder}, Endpoint("base"), port=port, replicas=2)
    yield ServedBundle(server.url, "m", Bundle.open(bundle_folder), whole_rows, binary=True)
    withdraw()


class TestRay(InferenceProtocolSuite):
    def test_replicas_of_both_nodes_answer(self, served: ServedBundle) -> None:
        """A replica has one core, and so has a node: two replicas are on two nodes."""
        import ray

        assert len([n for n in ray.nodes() if n["Alive"]]) == 2
        body = json.dumps({"columns": {n: [v[0]] for n, v in served.columns.items()}}).encode()
        wanted = served.bundle.predict({n: v[:1] for n, v in served.columns.items()})
        processes = set()
        for _ in range(200):
            request = urllib.request.Request(f"{served.url}/v1/predict/m", body, method="POST")
            with urllib.request.urlopen(request, timeout=60) as answer:
                told = json.load(answer)
            assert told["predictions"][0]["label"] == wanted[0]
            processes.add(told["request_id"].split("-")[0])
            if len(processes) == 2:
                break
        assert len(processes) == 2
