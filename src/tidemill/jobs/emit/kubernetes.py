"""A Job for Kubernetes, in a queue of Kueue where one is named."""

from __future__ import annotations

from typing import Any

from tidemill.core.errors import OptionError
from tidemill.jobs.emit.launch import PORT, Launch, mebibytes, remarks


def write(launch: Launch) -> str:
    """Write a manifest: an indexed Job whose pods find the first of them by its host name.

    Raises
    ------
    OptionError
        Without an image.
    """
    import yaml

    if not launch.image:
        raise OptionError("Kubernetes runs containers: name an image that holds the program.", where="--image")
    documents = [_job(launch)] if launch.nodes == 1 else [_service(launch), _job(launch)]
    head = "".join(f"# {line}\n" for line in remarks("batch/v1 Job and Kueue"))
    return head + yaml.safe_dump_all(documents, sort_keys=False, width=200)


def _service(launch: Launch) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": launch.name},
        # Headless: it only gives the pods their host names. They must find each other before they are ready.
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"batch.kubernetes.io/job-name": launch.name},
        },
    }


def _job(launch: Launch) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": launch.name}
    spec: dict[str, Any] = {
        "parallelism": launch.nodes,
        "completions": launch.nodes,
        "completionMode": "Indexed",
        "backoffLimit": launch.restarts * launch.nodes,
    }
    if launch.queue:
        metadata["labels"] = {"kueue.x-k8s.io/queue-name": launch.queue}
        spec["suspend"] = True  # Kueue lets it go when its turn has come
    if launch.time_s is not None:
        spec["activeDeadlineSeconds"] = int(-(-launch.time_s // 1))
    pod: dict[str, Any] = {"restartPolicy": "Never"}
    if launch.nodes > 1:
        pod["subdomain"] = launch.name
    pod["containers"] = [_container(launch)]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {**spec, "template": {"spec": pod}}}


def _container(launch: Launch) -> dict[str, Any]:
    meet = f"{launch.name}-0.{launch.name}:{PORT}"
    words = launch.torchrun(nodes=str(launch.nodes), meet=meet, identity=launch.name)
    resources: dict[str, Any] = {}
    if launch.cpus:
        resources["cpu"] = str(launch.cpus)
    if launch.memory_bytes:
        resources["memory"] = f"{mebibytes(launch.memory_bytes)}Mi"
    # Kueue counts what is requested; what can't be shared must be limited to the same.
    limits = {**resources, **({"nvidia.com/gpu": str(launch.devices)} if launch.devices else {})}
    arguments = [word.replace("$", "$$") for word in launch.program]  # $(NAME) would be filled in, $$ is a dollar
    container: dict[str, Any] = {"name": "main", "image": launch.image, "command": words, "args": arguments}
    if limits:
        container["resources"] = {"requests": dict(limits), "limits": dict(limits)}
    return container
