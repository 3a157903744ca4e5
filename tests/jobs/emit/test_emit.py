"""Launch files against the published forms of their schedulers; none of them is run there."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tidemill.core.errors import NotFoundError, OptionError
from tidemill.jobs.emit import TARGETS, Launch, emit
from tidemill.jobs.emit.launch import mebibytes

ONE = Launch(("python", "train.py", "--lr", "0.1"), devices=4, accelerator="H100", image="example.org/train:1")
TWO = Launch(
    ("-m", "mine.train", "--title", "it's $HOME; rm *"), name="big-run", nodes=2, devices=8, accelerator="A100",
    cpus=32, memory_bytes=256 * 10**9, queue="gpu", image="example.org/train:1",
)  # fmt: skip

# What the specifications know, as published at kubernetes.io (JobSpec) and docs.skypilot.co (task YAML).
JOB = {
    "activeDeadlineSeconds", "backoffLimit", "backoffLimitPerIndex", "completionMode", "completions", "manualSelector",
    "maxFailedIndexes", "parallelism", "podFailurePolicy", "podReplacementPolicy", "selector", "successPolicy",
    "suspend", "template", "ttlSecondsAfterFinished",
}  # fmt: skip
SKY = {
    "name", "workdir", "num_nodes", "resources", "envs", "secrets", "volumes", "file_mounts", "setup", "run", "config",
}  # fmt: skip
SKY_RESOURCES = {
    "infra", "accelerators", "accelerator_args", "cpus", "memory", "instance_type", "use_spot", "disk_size",
    "disk_tier", "network_tier", "image_id", "ports", "labels", "any_of", "ordered", "job_recovery", "autostop",
}  # fmt: skip


def words_after(text: str, program: str) -> list[str]:
    """Words of the line that calls a program."""
    line = next(line for line in text.splitlines() if program in line and not line.startswith("#"))
    words = shlex.split(line)
    return words[words.index(program) + 1 :]


@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("launch", [ONE, TWO])
def test_every_file_says_that_it_is_unverified(target: str, launch: Launch) -> None:
    head = [line for line in emit(target, launch).splitlines()[:15] if line.startswith("# ")]
    assert any(line.startswith("# Unverified") for line in head)


@pytest.mark.parametrize("target", ["torchrun", "slurm"])
@pytest.mark.parametrize("launch", [ONE, TWO])
def test_scripts_are_shell(target: str, launch: Launch, tmp_path: Path) -> None:
    script = tmp_path / "launch.sh"
    script.write_text(emit(target, launch), encoding="utf-8")
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_torchrun_on_one_node_needs_nobody_else() -> None:
    words = words_after(emit("torchrun", ONE), "torchrun")
    assert words == ["--standalone", "--nproc-per-node=4", "--max-restarts=3", "train.py", "--lr", "0.1"]


def test_torchrun_reaches_the_program_with_its_words_as_they_are(tmp_path: Path) -> None:
    """The script runs with a torchrun that prints what it was given."""
    fake = tmp_path / "torchrun"
    fake.write_text("#!/bin/sh\nprintf '%s\\n' \"$@\"\n", encoding="utf-8")
    fake.chmod(0o755)
    script = tmp_path / "launch.sh"
    script.write_text(emit("torchrun", TWO), encoding="utf-8")
    path = f"{tmp_path}:/usr/bin:/bin"
    alone = subprocess.run(["bash", script], env={"PATH": path}, capture_output=True, text=True, check=False)
    assert alone.returncode != 0
    assert "address of one of the nodes" in alone.stderr
    both = {"PATH": path, "HEAD": "node1"}
    done = subprocess.run(["bash", script], env=both, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "--nnodes=2", "--rdzv-id=big-run", "--rdzv-backend=c10d", "--rdzv-endpoint=node1:29400", "--nproc-per-node=8",
        "--max-restarts=3", "-m", "mine.train", "--title", "it's $HOME; rm *",
    ]  # fmt: skip


@pytest.mark.parametrize("launch", [ONE, TWO])
def test_torchrun_itself_can_read_the_words(launch: Launch) -> None:
    run = pytest.importorskip("torch.distributed.run")
    options = run.get_args_parser().parse_args(words_after(emit("torchrun", launch), "torchrun"))
    assert options.nproc_per_node == str(launch.devices)
    assert options.training_script == ("train.py" if launch is ONE else "mine.train")


def test_slurm_gets_one_task_on_each_node() -> None:
    text = emit(
        "slurm", Launch(("train.py",), nodes=3, devices=2, cpus=8, memory_bytes=10**9, time_s=93_784, queue="a")
    )
    lines = text.splitlines()
    assert lines[0] == "#!/bin/bash"
    options = [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH ")]
    assert lines[1 : 1 + len(options)] == [f"#SBATCH {option}" for option in options], (
        "Slurm reads up to the first word"
    )
    assert {
        "--job-name=tidemill", "--nodes=3", "--ntasks-per-node=1", "--cpus-per-task=8", "--mem=954M", "--partition=a",
        "--gpus-per-node=2", "--time=1-02:03:04", "--signal=TERM@120", "--requeue",
    } <= set(options)  # fmt: skip
    assert "srun torchrun" in text
    assert '--rdzv-endpoint="$head:29400"' in text
    assert lines.index("export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=110") < len(lines) - 1, "within the notice"
    assert "TORCH_ELASTIC" not in emit("slurm", Launch(("train.py",))), "without a time there is no notice"


def test_kubernetes_gets_an_indexed_job_whose_pods_find_the_first() -> None:
    service, job = yaml.safe_load_all(emit("kubernetes", TWO))
    assert (service["apiVersion"], service["kind"], service["spec"]["clusterIP"]) == ("v1", "Service", "None")
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": "big-run"}
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert job["metadata"] == {"name": "big-run", "labels": {"kueue.x-k8s.io/queue-name": "gpu"}}
    spec = job["spec"]
    assert set(spec) <= JOB
    assert (spec["suspend"], spec["completions"], spec["parallelism"], spec["completionMode"]) == (
        True,
        2,
        2,
        "Indexed",
    )
    pod = spec["template"]["spec"]
    assert (pod["subdomain"], pod["restartPolicy"]) == (service["metadata"]["name"], "Never")
    (container,) = pod["containers"]
    assert "--rdzv-endpoint=big-run-0.big-run:29400" in container["command"]
    assert container["args"] == ["-m", "mine.train", "--title", "it's $$HOME; rm *"]
    limits = {"cpu": "32", "memory": f"{mebibytes(256 * 10**9)}Mi", "nvidia.com/gpu": "8"}
    assert container["resources"] == {"requests": limits, "limits": limits}


def test_kubernetes_without_a_queue_is_not_suspended_for_ever() -> None:
    (job,) = yaml.safe_load_all(emit("kubernetes", ONE))
    assert "suspend" not in job["spec"]
    assert "labels" not in job["metadata"]


def test_skypilot_gets_a_task() -> None:
    task = yaml.safe_load(emit("skypilot", TWO))
    assert set(task) <= SKY
    assert set(task["resources"]) <= SKY_RESOURCES
    assert (task["num_nodes"], task["resources"]["accelerators"]) == (2, "A100:8")
    assert (task["resources"]["cpus"], task["resources"]["memory"]) == ("32+", "256+")
    assert task["run"].splitlines()[0] == 'read -r head <<< "$SKYPILOT_NODE_IPS"'
    assert words_after(task["run"], "torchrun")[-3:] == ["mine.train", "--title", "it's $HOME; rm *"]


WORDS = st.text(st.characters(exclude_characters="\n\0", exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(st.lists(WORDS, max_size=4))
def test_any_word_of_a_command_comes_through(words: list[str]) -> None:
    launch = Launch(("train.py", *words), image="i", nodes=2, devices=1, accelerator="L4")
    for target in ("torchrun", "slurm"):
        line = emit(target, launch).rstrip("\n").splitlines()[-1] if not _breaks(words) else None
        assert line is None or shlex.split(line)[-1 - len(words) :] == ["train.py", *words]
    *_, job = yaml.safe_load_all(emit("kubernetes", launch))
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == [w.replace("$", "$$") for w in launch.program]
    task = yaml.safe_load(emit("skypilot", launch))
    assert _breaks(words) or shlex.split(task["run"].splitlines()[-1])[-1 - len(words) :] == ["train.py", *words]


def _breaks(words: list[str]) -> bool:
    """Whether Python takes a character for the end of a line that a shell does not."""
    return any(len(word.splitlines()) != 1 or word.splitlines()[0] != word for word in words)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"command": ()}, "no program"),
        ({"command": ("python",)}, "no program"),
        ({"command": ("python3.11", "-c", "print()")}, "must name a file"),
        ({"command": ("-m",)}, "must name a file"),
        ({"command": ("a.py", "x\ny")}, "line break"),
        ({"name": "Big_Run"}, "lower-case letters"),
        ({"queue": "a b"}, "one printable word"),
        ({"devices": 2, "processes": 3}, "as many processes"),
        ({"nodes": 0}, "must be a node"),
        ({"time_s": 0.0}, "time must be positive"),
    ],
)
def test_what_no_file_can_say_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        Launch(**{"command": ("train.py",), **changes})


def test_targets_refuse_what_they_lack() -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'slurm'"):
        emit("slrum", ONE)
    with pytest.raises(OptionError, match="image"):
        emit("kubernetes", Launch(("train.py",)))
    with pytest.raises(OptionError, match="which accelerator"):
        emit("skypilot", Launch(("train.py",), devices=1))
    with pytest.raises(OptionError, match="no time limit"):
        emit("skypilot", Launch(("train.py",), time_s=5.0))
