"""What starts a bundle elsewhere: files that parse, with the fields that their readers require."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.bundle.small import make
from typer.main import get_command

from tidemill.bundle.export import Exporter, get_exporter
from tidemill.bundle.exporters._launch import launch_of, serve_command
from tidemill.bundle.runtime import Bundle
from tidemill.bundle.verify import verify
from tidemill.testing.exporter import ExporterSuite


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return make(tmp_path_factory.mktemp("launch") / "small.tm", "binary")


@pytest.fixture(params=["docker", "kserve", "systemd"])
def exporter(request: pytest.FixtureRequest) -> Exporter:
    return get_exporter(request.param)


class TestLaunchers(ExporterSuite):
    """The laws of all exporters."""


@pytest.fixture(scope="session")
def written(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each form, written once."""
    root = tmp_path_factory.mktemp("written")
    return {name: get_exporter(name).export(bundle, root / name) for name in ("docker", "kserve", "systemd")}


def documents(folder: Path) -> dict[str, Any]:
    return {p.name: yaml.safe_load(p.read_text()) for p in folder.glob("*.yaml")}


def parsed(words: list[str]) -> dict[str, Any]:
    """Parse a command with the real command line, without running it; what is not known there is an error."""
    from tidemill.cli.main import app

    assert words[0] == "tidemill"
    command = get_command(app).commands[words[1]]  # type: ignore[attr-defined]  # it is a group
    with command.make_context(words[1], words[2:]) as context:
        return dict(context.params)


@pytest.mark.parametrize("form", ["docker", "kserve", "systemd"])
def test_the_bundle_travels_along_whole(written: dict[str, Path], form: str) -> None:
    folders = [p.parent for p in written[form].rglob("manifest.json")]
    assert len(folders) == 1
    assert verify(folders[0]) == []


def test_the_name_fits_all_systems(tmp_path: Path) -> None:
    names = {"Small Model.v2": "small-model-v2", "7th": "m-7th", "Ärger": "rger", "x" * 80: "x" * 50}
    for number, (name, wanted) in enumerate(names.items()):
        opened = make(tmp_path / f"b{number}", "binary", rows=60)
        object.__setattr__(opened.spec.info, "name", name)
        launch = launch_of(opened)
        assert launch.name == wanted
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", launch.name)


def test_the_commands_are_ours(bundle: Bundle, written: dict[str, Path]) -> None:
    """Every word of every start command is known to the program that it starts."""
    told = parsed(serve_command("/bundle", "small"))
    assert (told["host"], told["port"], told["public"], told["name"]) == ("0.0.0.0", 8080, True, "small")
    lines = (written["docker"] / "Dockerfile").read_text().splitlines()
    entry = json.loads(next(x for x in lines if x.startswith("ENTRYPOINT ")).removeprefix("ENTRYPOINT "))
    assert parsed(entry)["public"] is True
    runtime = documents(written["kserve"])["serving-runtime.yaml"]["spec"]["containers"][0]
    assert parsed(runtime["command"] + runtime["args"])["name"] == "{{.Name}}"


def test_a_container_that_writes_nothing_and_is_nobody(bundle: Bundle, written: dict[str, Path]) -> None:
    text = (written["docker"] / "Dockerfile").read_text()
    assert re.search(r"^FROM \S+$", text, re.M)
    assert re.search(r"^USER 10001$", text, re.M)
    assert text.index("COPY") < text.index("USER") < text.index("ENTRYPOINT")
    service = documents(written["docker"])["compose.yaml"]["services"]["small"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["ports"] == ["127.0.0.1:8080:8080"]
    peak = bundle.spec.performance["peak_memory_bytes"] / 2**20
    assert peak < int(service["mem_limit"].removesuffix("m")) < peak * 1.5 + 300


def test_kserve_manifests_have_what_kserve_requires(written: dict[str, Path]) -> None:
    found = documents(written["kserve"])
    runtime, service = found["serving-runtime.yaml"], found["inference-service.yaml"]
    assert (runtime["apiVersion"], runtime["kind"]) == ("serving.kserve.io/v1alpha1", "ServingRuntime")
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    formats = {f["name"] for f in runtime["spec"]["supportedModelFormats"]}
    container = runtime["spec"]["containers"][0]
    assert container["name"] == "kserve-container"
    assert {"image", "args", "ports", "resources", "readinessProbe"} <= set(container)
    model = service["spec"]["predictor"]["model"]
    assert model["modelFormat"]["name"] in formats
    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    assert re.fullmatch(r"pvc://[a-z-]+/small/[0-9a-f]{12}", model["storageUri"])
    predictor = service["spec"]["predictor"]
    assert 1 <= predictor["minReplicas"] <= predictor["maxReplicas"]
    assert predictor["scaleMetric"] in {"cpu", "memory", "concurrency", "rps"}
    where = model["storageUri"].removeprefix("pvc://").partition("/")[2]
    assert (written["kserve"] / "models" / where / "1" / "model.onnx").is_file()


def test_kubernetes_objects_are_whole_and_select_the_service(written: dict[str, Path]) -> None:
    found = documents(written["kserve"])
    everything = found.pop("kustomization.yaml")
    assert sorted(everything["resources"]) == sorted(found)
    image = found["serving-runtime.yaml"]["spec"]["containers"][0]["image"]
    assert everything["images"][0]["name"] == image
    name = found["inference-service.yaml"]["metadata"]["name"]
    label = {"serving.kserve.io/inferenceservice": name}
    assert found["disruption-budget.yaml"]["spec"]["selector"]["matchLabels"] == label
    assert found["network-policy.yaml"]["spec"]["podSelector"]["matchLabels"] == label
    assert found["pod-monitor.yaml"]["spec"]["selector"]["matchLabels"] == label
    for document in found.values():
        assert {"apiVersion", "kind", "metadata", "spec"} <= set(document)
        assert len(document["metadata"]["name"]) <= 63


def test_the_canary_is_an_overlay_on_the_same_service(written: dict[str, Path]) -> None:
    overlay = yaml.safe_load((written["kserve"] / "canary" / "kustomization.yaml").read_text())
    assert overlay["resources"] == [".."]
    patch = yaml.safe_load(overlay["patches"][0]["patch"])
    service = documents(written["kserve"])["inference-service.yaml"]
    assert (patch["kind"], patch["metadata"]["name"]) == (service["kind"], service["metadata"]["name"])
    assert 0 < patch["spec"]["predictor"]["canaryTrafficPercent"] < 100


def units(folder: Path, suffix: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # systemd's names have capitals
    parser.read_string(next(folder.glob(f"*.{suffix}")).read_text())
    return parser


def test_systemd_units_belong_together(written: dict[str, Path]) -> None:
    folder = written["systemd"]
    service, socket = units(folder, "service"), units(folder, "socket")
    assert {p.stem for p in folder.glob("tidemill-*")} == {"tidemill-small"}
    assert service["Unit"]["Requires"] == "tidemill-small.socket"
    assert socket["Socket"]["ListenStream"] == "127.0.0.1:8080"
    assert service["Service"]["Restart"] == "always"
    assert service["Service"]["StateDirectory"] == "tidemill-small"
    words = shlex.split(service["Service"]["ExecStart"])
    assert words[0] == "/usr/bin/env"
    told = parsed(words[1:])
    assert told["public"] is False
    assert str(told["bundle"][0]) == "%S/tidemill-small/bundle"


def test_the_installer_is_a_script(written: dict[str, Path]) -> None:
    script = written["systemd"] / "install.sh"
    assert script.stat().st_mode & 0o111
    assert subprocess.run(["sh", "-n", str(script)], check=False, timeout=30).returncode == 0
