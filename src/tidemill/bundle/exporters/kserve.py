"""KServe manifests: a runtime of our own, the service, canary weights, autoscaling, and what guards them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemill.bundle.exporters._launch import DRAIN_S, PORT, Launch, copy_bundle, launch_of, write_yaml
from tidemill.bundle.exporters.docker import dockerfile
from tidemill.bundle.folder import atomic_folder
from tidemill.bundle.runtime import Bundle

RUNTIME_IMAGE = "tidemill-serve"
"""Name of the image in the manifests; ``kustomization.yaml`` is the one place to point it at a registry."""
_CLAIM = "tidemill-models"
_MOUNT = "/mnt/models"
_API = "serving.kserve.io"


@dataclass(frozen=True)
class KServeManifests:
    """Writes a kustomization with everything a cluster needs, and the folder to put on its model store."""

    description: str = "KServe manifests"

    def export(self, bundle: Bundle, out: Path) -> Path:
        """Write the folder."""
        launch = launch_of(bundle)
        documents = {
            "serving-runtime.yaml": serving_runtime(launch),
            "inference-service.yaml": inference_service(launch),
            "disruption-budget.yaml": disruption_budget(launch),
            "network-policy.yaml": network_policy(launch),
            "pod-monitor.yaml": pod_monitor(launch),
        }
        with atomic_folder(out) as folder:
            copy_bundle(bundle, folder / "models" / launch.name / launch.digest)
            for name, document in documents.items():
                write_yaml(folder / name, document)
            write_yaml(folder / "kustomization.yaml", kustomization(launch, list(documents)))
            (folder / "canary").mkdir()
            write_yaml(folder / "canary" / "kustomization.yaml", canary(launch))
            (folder / "Dockerfile").write_text(runtime_dockerfile(launch), encoding="utf-8")
            (folder / "README.md").write_text(readme(launch), encoding="utf-8")
        return out


def serving_runtime(launch: Launch) -> dict[str, Any]:
    """The runtime: the same server as everywhere, with the bundle where KServe puts it."""
    name = "{{.Name}}"
    command = ["tidemill", "serve", _MOUNT, "--name", name, "--host", "0.0.0.0", "--port", str(PORT), "--public"]
    health = {"httpGet": {"path": "/v2/health/ready", "port": PORT}}
    container = {
        "name": "kserve-container",
        "image": RUNTIME_IMAGE,
        "command": command[:1],
        "args": command[1:],
        "ports": [{"name": "http1", "containerPort": PORT, "protocol": "TCP"}],
        "readinessProbe": {**health, "periodSeconds": 2},
        "livenessProbe": {"httpGet": {"path": "/v2/health/live", "port": PORT}, "periodSeconds": 10},
        "resources": _resources(launch),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],
    }
    return {
        "apiVersion": f"{_API}/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": "tidemill"},
        "spec": {
            "annotations": {"prometheus.kserve.io/port": str(PORT), "prometheus.kserve.io/path": "/metrics"},
            "supportedModelFormats": [{"name": "tidemill", "version": "1", "autoSelect": True, "priority": 1}],
            "protocolVersions": ["v2"],
            "multiModel": False,
            "containers": [container],
            "volumes": [{"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}],
        },
    }


def inference_service(launch: Launch) -> dict[str, Any]:
    """The service: at least one replica, more as requests come in side by side."""
    return {
        "apiVersion": f"{_API}/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": launch.name, "labels": {"tidemill/bundle": launch.digest}},
        "spec": {
            "predictor": {
                "minReplicas": 1,
                "maxReplicas": 4,
                "scaleMetric": "concurrency",
                "scaleTarget": 64,
                "timeout": 30,
                "terminationGracePeriodSeconds": DRAIN_S,
                "model": {
                    "modelFormat": {"name": "tidemill", "version": "1"},
                    "runtime": "tidemill",
                    "protocolVersion": "v2",
                    "storageUri": f"pvc://{_CLAIM}/{launch.name}/{launch.digest}",
                    "resources": _resources(launch),
                },
            }
        },
    }


def canary(launch: Launch) -> dict[str, Any]:
    """An overlay that gives this bundle a tenth of the traffic beside the one that was rolled out before."""
    patch = {
        "apiVersion": f"{_API}/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": launch.name},
        "spec": {"predictor": {"canaryTrafficPercent": 10}},
    }
    import yaml

    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [".."],
        "patches": [{"patch": yaml.safe_dump(patch, sort_keys=False)}],
    }


def kustomization(launch: Launch, resources: list[str]) -> dict[str, Any]:
    """Everything together, with the one place to name the image."""
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": resources,
        "images": [{"name": RUNTIME_IMAGE, "newName": RUNTIME_IMAGE, "newTag": launch.version}],
    }


def disruption_budget(launch: Launch) -> dict[str, Any]:
    """At most one replica at a time is taken away by maintenance."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": launch.name},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _labels(launch)}},
    }


def network_policy(launch: Launch) -> dict[str, Any]:
    """Requests may come in on the port; the model itself calls nobody."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": launch.name},
        "spec": {
            "podSelector": {"matchLabels": _labels(launch)},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"protocol": "TCP", "port": PORT}]}],
        },
    }


def pod_monitor(launch: Launch) -> dict[str, Any]:
    """Lets a Prometheus operator read ``/metrics``."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {"name": launch.name},
        "spec": {
            "selector": {"matchLabels": _labels(launch)},
            "podMetricsEndpoints": [{"port": "http1", "path": "/metrics", "interval": "15s"}],
        },
    }


def runtime_dockerfile(launch: Launch) -> str:
    """The image of the runtime: the container without a bundle in it."""
    kept = [
        line
        for line in dockerfile(launch).splitlines()
        if not line.startswith(("COPY", "ENTRYPOINT", "HEALTHCHECK", "# "))
    ]
    return "\n".join([f"# Image {RUNTIME_IMAGE}:{launch.version}: the server; the bundle is mounted.", *kept]) + "\n"


def readme(launch: Launch) -> str:
    """How to use the folder, and what has not been tried."""
    image = f"{RUNTIME_IMAGE}:{launch.version}"
    return f"""# {launch.name} on KServe

1. Build the image `{image}` from `Dockerfile`, push it to your registry, and name it in
   `kustomization.yaml` under `images`.
2. Copy `models/` to the volume claim `{_CLAIM}`, or change `storageUri` in `inference-service.yaml`.
3. `kubectl apply -k .`, or `kubectl apply -k canary` for a tenth of the traffic. To go on, change
   `canaryTrafficPercent`; without it the new revision gets all, with 0 the old one.

`canaryTrafficPercent` works in KServe's serverless (Knative) mode. KServe's own gate looks at readiness only; the
statistical gate, shadow and feedback loop are those of `tidemill up`.

These files are checked against the fields that KServe and Kubernetes document. They have not been tried on a cluster.
"""


def _resources(launch: Launch) -> Mapping[str, Any]:
    memory = f"{launch.memory_mib}Mi"
    return {"requests": {"cpu": "500m", "memory": memory}, "limits": {"cpu": "2", "memory": memory}}


def _labels(launch: Launch) -> dict[str, str]:
    return {f"{_API}/inferenceservice": launch.name}


EXPORTER = KServeManifests()
