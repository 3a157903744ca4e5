"""The queue of jobs: submit, look, cancel, retry, work, and launch files for other schedulers."""

from __future__ import annotations

import datetime as dt
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tidemill.core.budget import parse_duration_s, parse_size_bytes
from tidemill.core.errors import NotFoundError, OptionError
from tidemill.core.objective import parse_objective
from tidemill.jobs import emit as launch_files
from tidemill.jobs._call import resolve
from tidemill.jobs.queue.folders import Piece, log_path, read_log
from tidemill.jobs.queue.kinds import Kind, Kinds
from tidemill.jobs.queue.machine import capacity, find_devices
from tidemill.jobs.queue.queue import JobQueue, quota_change
from tidemill.jobs.queue.types import ENDED, HELD, Device, Job, JobState, Quota, Request, Until
from tidemill.jobs.queue.worker import Pace, Worker
from tidemill.sdk.data.doors import Door
from tidemill.sdk.data.names import actor_name
from tidemill.sdk.features import Place, opened
from tidemill.sdk.job_kinds import known_kinds
from tidemill.sdk.sources import SOURCE
from tidemill.store.workspace import Workspace

FILES = "files"
"""Folder of the workspace in which callers on other machines may name files."""

WITHIN = "within"
"""Argument of kinds that read files which other files name: these, too, must then lie in `FILES`."""

_FIELDS = (
    "name", "kind", "arguments", "needs", "priority", "cpus", "memory", "devices", "device_memory", "time", "attempts",
)  # fmt: skip


def submit_job(
    kind: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    workspace: Place = None,
    actor: str | None = None,
    afar: bool = False,
    **wanted: Any,
) -> dict[str, Any]:
    """Queue a job; a worker runs it.

    Parameters
    ----------
    kind : str
        What to run, see `list_kinds`.
    arguments : mapping, optional
        Of the kind.
    workspace : Workspace or path, optional
        Default as everywhere.
    actor : str, optional
        Who wants it; default ``TIDEMILL_ACTOR``, else the system's user.
    afar : bool
        True for a caller on another machine: files must then lie in the workspace's folder `FILES`.
    **wanted
        ``name``; ``needs``, a list of ids, or of ``{"job": id, "until": "ended"}`` for jobs that need not succeed;
        ``priority``; ``cpus``, 0 for all of the worker that takes the job, which is what a ``fit`` gets where nobody
        says how many; ``memory`` and ``device_memory`` (``"4GB"``), what it will probably hold, the former also the
        limit of a fit's trials; ``devices``; ``time`` (``"2h"``) for all attempts together; ``attempts``.

    Returns
    -------
    dict
        The job, as `show_job` gives it.

    Raises
    ------
    NotFoundError
        For a kind or a needed job that is not there.
    OptionError
        For arguments that don't fit, or where the owner's quota is full.
    """
    return submit_jobs([{**wanted, "kind": kind, "arguments": arguments or {}}], workspace=workspace, actor=actor,
                       afar=afar)[0]  # fmt: skip


def submit_jobs(
    steps: Sequence[Mapping[str, Any]] | Mapping[str, Any] | str | Path,
    *,
    workspace: Place = None,
    actor: str | None = None,
    afar: bool = False,
) -> list[dict[str, Any]]:
    """Queue jobs that may need each other, all or none.

    Parameters
    ----------
    steps : sequence of mapping, or path of a YAML or JSON file
        Each with ``kind``, ``arguments`` and the words of `submit_job`; ``needs`` may name other steps. A file holds
        the list, or ``{"jobs": list}``.
    workspace, actor, afar
        As in `submit_job`.
    """
    kinds = known_kinds()
    owner = actor_name(actor)
    with opened(workspace) as place:
        requests = [_request(step, kinds, owner, place, afar) for step in _steps(steps)]
        queue = JobQueue(place.database)
        return [describe(job, queue) for job in queue.submit_all(requests)]


def list_jobs(
    *,
    states: Sequence[str] = (),
    owner: str | None = None,
    kind: str | None = None,
    limit: int = 100,
    workspace: Place = None,
) -> list[dict[str, Any]]:
    """List the newest jobs, newest first.

    Parameters
    ----------
    states : sequence of str
        Only these; ``"open"`` stands for all that have not ended.
    owner, kind : str, optional
        Only theirs, only of this kind.
    limit : int
        So many at most.
    workspace : Workspace or path, optional
        Default as everywhere.
    """
    if limit < 1:
        raise OptionError(f"At least one job must be asked for, but got {limit}.", where="limit")
    wanted = [state for word in states for state in _state(word)]
    with opened(workspace) as place:
        queue = JobQueue(place.database)
        return [describe(job, queue) for job in queue.jobs(states=wanted, owner=owner, kind=kind, limit=limit)]


def show_job(job: int, *, workspace: Place = None) -> dict[str, Any]:
    """Describe a job with its attempts; raises `NotFoundError`."""
    with opened(workspace) as place:
        queue = JobQueue(place.database)
        found = queue.get(job)
        attempts = [
            {
                "attempt": one.number,
                "host": one.host,
                "outcome": one.outcome,
                "started": _utc(one.started_at),
                "seconds": None if one.finished_at is None else round(one.finished_at - one.started_at, 3),
                "error": one.error,
            }
            for one in queue.attempts(job)
        ]
        needs = [{"job": number, "until": until.value} for number, until in queue.needs(job).items()]
        return {**describe(found, queue), "needs": needs, "attempts": attempts}


def job_log(
    job: int, *, attempt: int | None = None, offset: int = 0, limit: int = 1 << 20, workspace: Place = None
) -> dict[str, Any]:
    """Read a part of what an attempt has printed.

    Parameters
    ----------
    job : int
        Its id.
    attempt : int, optional
        Default the last.
    offset : int
        Byte to begin at; a negative one counts from the end.
    limit : int
        Most bytes.
    workspace : Workspace or path, optional
        Default as everywhere.

    Returns
    -------
    dict
        ``text``, ``offset`` (where to go on), ``size``, ``attempt``, ``attempts`` (how often it was tried so far: each
        attempt has a log of its own), and ``over``: whether nothing more can come in this one.

    Raises
    ------
    NotFoundError
        Where there is no such job or attempt, or its log stands on another machine.
    """
    with opened(workspace) as place:
        queue = JobQueue(place.database)
        found = queue.get(job)
        number = found.attempt if attempt is None else attempt
        # Before reading: what is printed later comes next time. A job that waits has its next attempt before it.
        over = found.state in ENDED or number < found.attempt
        if not 0 <= number <= found.attempt:
            raise NotFoundError(f"Job {job} has no attempt {number}; it was tried {found.attempt} times.")
        path = log_path(place.path, job, number)
        # Before its first attempt, and in an attempt's first moments, nothing was printed yet.
        young = number == 0 or (not over and not path.exists())
        piece = Piece("", 0, 0) if young else read_log(path, offset=offset, limit=limit)
        told = {"text": piece.text, "offset": piece.offset, "size": piece.size, "attempt": number}
        return {**told, "attempts": found.attempt, "over": over and piece.offset >= piece.size}


def cancel_job(job: int, *, force: bool = False, workspace: Place = None, actor: str | None = None) -> dict[str, Any]:
    """End a job: first by asking, or at once with ``force``; raises `ConflictError` where it has ended."""
    with opened(workspace) as place:
        queue = JobQueue(place.database)
        return describe(queue.cancel(job, force=force, by=actor_name(actor)), queue)


def retry_job(job: int, *, attempts: int = 3, workspace: Place = None) -> dict[str, Any]:
    """Queue a job again that did not succeed; it goes on from its checkpoint."""
    with opened(workspace) as place:
        queue = JobQueue(place.database)
        return describe(queue.retry(job, attempts=attempts), queue)


def list_kinds() -> list[dict[str, Any]]:
    """List what a queue can run."""
    return [
        {
            "kind": kind.name,
            "about": kind.about,
            "arguments": {
                name: {
                    "type": one.type,
                    **({"items": one.items} if one.items else {}),
                    "about": one.about,
                    "required": one.required,
                    "local": one.local,
                }
                for name, one in kind.arguments.items()
            },
        }
        for kind in known_kinds().all()
    ]


def set_quota(
    owner: str,
    *,
    running: int | None = None,
    queued: int | None = None,
    workspace: Place = None,
    actor: str | None = None,
) -> dict[str, Any]:
    """Say how many jobs an owner may have at a time; the audit log has a line about it.

    Parameters
    ----------
    owner : str
        Whose; ``"*"``: of each that has no quota of its own.
    running, queued : int, optional
        Jobs that run, and jobs that wait; None for any number. Without both the quota is taken back.
    workspace : Workspace or path, optional
        Default as everywhere.
    actor : str, optional
        Who says so; default ``TIDEMILL_ACTOR``, else the system's user.
    """
    from tidemill.deploy.audit import Audit, Line

    quota = None if running is None and queued is None else Quota(running, queued)
    told = {"running": running, "queued": queued}
    with opened(workspace) as place:
        line = Line("job_quota", owner, told, actor=actor_name(actor))
        Audit(place.records, place.journal).change([quota_change(owner, quota)], [line])
    return {"owner": owner, **told}


def list_quotas(workspace: Place = None) -> list[dict[str, Any]]:
    """List the quotas by owner."""
    with opened(workspace) as place:
        found = JobQueue(place.database).quotas()
        return [{"owner": o, "running": q.running, "queued": q.queued} for o, q in sorted(found.items())]


def work(
    *,
    cpus: int | None = None,
    memory: str | int | None = None,
    devices: Sequence[str] | None = None,
    until_idle: bool = False,
    grace_s: float = 30.0,
    workspace: str | Path | None = None,
    tell: Callable[[str, dict[str, Any] | None, str], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Run jobs until SIGTERM, SIGINT or ``stop``; what runs then goes on, and the next worker takes it over.

    Parameters
    ----------
    cpus : int, optional
        Cores for all jobs together; default all.
    memory : str or int, optional
        Memory for all jobs together; default nine tenths of the machine's.
    devices : sequence of str, optional
        Names of those devices of the machine that may be used (``"cuda:0"``); default all, empty for none.
    until_idle : bool
        End where nothing runs and nothing is in the line that could run here.
    grace_s : float
        How long a job may take to stop before it is told by SIGTERM.
    workspace : path, optional
        Default as everywhere.
    tell : callable, optional
        Gets what happened, the job or None, and more in words.
    stop : threading.Event, optional
        Ends it, where there are no signals.

    Raises
    ------
    OptionError
        For a device that is not there.
    """
    if grace_s < 0:
        raise OptionError(f"The grace must not be negative, but got {grace_s}.", where="--grace")
    size = None if memory is None else parse_size_bytes(memory)
    ended = stop or threading.Event()

    def hear(what: str, job: Job | None, words: str) -> None:
        if tell is not None:
            tell(what, None if job is None else describe(job), words)

    with Workspace.open(workspace) as place:
        worker = Worker(
            place,
            known_kinds(),
            capacity(cpus, size, _devices(devices)),
            tell=hear,
            pace=Pace(grace_s=grace_s),
        )
        if stop is None:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: ended.set())
        worker.run(ended, until_idle=until_idle)


def emit_launch(
    target: str,
    command: Sequence[str],
    *,
    time: str | float | None = None,
    memory: str | int | None = None,
    **wanted: Any,
) -> str:
    """Write a launch file for another scheduler.

    Parameters
    ----------
    target : str
        ``"torchrun"``, ``"slurm"``, ``"kubernetes"`` or ``"skypilot"``.
    command : sequence of str
        A Python program with its arguments.
    time, memory : optional
        As people write them; of each machine.
    **wanted
        Other fields of `tidemill.jobs.emit.Launch`.

    Examples
    --------
    >>> print(emit_launch("slurm", ["train.py"], devices=2, time="2h").splitlines()[4])
    #SBATCH --gpus-per-node=2
    """
    launch = launch_files.Launch(
        tuple(command),
        time_s=None if time is None else parse_duration_s(time),
        memory_bytes=0 if memory is None else parse_size_bytes(memory),
        **wanted,
    )
    return launch_files.emit(target, launch)


def describe(job: Job, queue: JobQueue | None = None) -> dict[str, Any]:
    """Put a job into plain values for doors."""
    position = queue.position(job) if queue is not None and job.state is JobState.QUEUED else None
    now = time.time()
    running = now - job.started_at if job.state in HELD and job.started_at is not None else 0.0
    return {
        "job": job.id,
        "name": job.name,
        "kind": job.kind,
        "state": job.state.value,
        "owner": job.owner,
        "priority": job.priority,
        "position": position,
        "attempt": job.attempt,
        "attempts": job.max_attempts,
        "cpus": job.cpus,
        "memory_bytes": job.memory_bytes,
        "devices": job.devices,
        "device_bytes": job.device_bytes,
        "held": list(job.held),
        "host": job.host,
        "pid": job.pid,
        "progress": _finite(dict(job.progress)),
        "seconds": round(job.spent_s + running, 3),
        "time_s": job.time_s,
        "again": _utc(job.ready_at) if job.state is JobState.QUEUED and job.ready_at > now else None,
        "submitted": _utc(job.submitted_at),
        "started": _utc(job.started_at),
        "finished": _utc(job.finished_at),
        "arguments": _finite(dict(job.arguments)),
        "result": _finite(job.result),
        "error": job.error,
    }


def _finite(value: Any) -> Any:
    """NaN and infinities as None: JSON at the doors has neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {k: _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list) else value


def _utc(at: float | None) -> str | None:
    return None if at is None else dt.datetime.fromtimestamp(at, dt.timezone.utc).isoformat(" ", "seconds")


def _state(word: str) -> list[JobState]:
    if word == "open":
        return [JobState.WAITING, JobState.QUEUED, *HELD]
    known = [state.value for state in JobState]
    if word not in known:
        raise NotFoundError.of("state of jobs", word, [*known, "open"])
    return [JobState(word)]


def _devices(names: Sequence[str] | None) -> tuple[Device, ...] | None:
    if names is None:
        return None
    found = {device.name: device for device in find_devices()} if names else {}
    for name in names:
        if name not in found:
            raise NotFoundError.of("device", name, found)
    return tuple(found[name] for name in dict.fromkeys(names))


# ---------------------------------------------------------------------------------------------------------- submitting


def _steps(steps: Sequence[Mapping[str, Any]] | Mapping[str, Any] | str | Path) -> list[Mapping[str, Any]]:
    where = None
    if isinstance(steps, (str, Path)):
        where = str(steps)
        steps = _read(Path(steps))
    found = steps.get("jobs") if isinstance(steps, Mapping) else steps
    if not isinstance(found, Sequence) or not found or not all(isinstance(step, Mapping) for step in found):
        raise OptionError("Jobs are a list of objects, each with a kind.", where=where)
    return list(found)


def _read(path: Path) -> Any:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except FileNotFoundError as error:
        raise OptionError("There is no such file.", where=str(path)) from error
    except (OSError, UnicodeDecodeError, ValueError, yaml.YAMLError) as error:
        raise OptionError(f"The jobs can't be read: {' '.join(str(error).split())}", where=str(path)) from error


def _request(step: Mapping[str, Any], kinds: Kinds, owner: str, place: Workspace, afar: bool) -> Request:
    for name in step:
        if name not in _FIELDS:
            raise NotFoundError.of("field of a job", str(name), _FIELDS)
    kind = kinds.get(str(step.get("kind", "")))
    arguments = kind.check(_object(step, "arguments"), afar=afar)
    if kind.review:
        resolve(kind.review)(**arguments)
    numbers = {field: _integer(step, field) for field in ("priority", "cpus", "devices") if step.get(field) is not None}
    if step.get("attempts") is not None:
        numbers["max_attempts"] = _integer(step, "attempts")
    sizes = {"memory_bytes": step.get("memory"), "device_bytes": step.get("device_memory")}
    return Request(
        kind=kind.name,
        arguments=_settled(kind, arguments, Door(place, owner) if afar else None),
        name=str(step.get("name") or ""),
        owner=owner,
        needs=_needs(step.get("needs")),
        time_s=None if step.get("time") is None else parse_duration_s(step["time"]),
        **{field: parse_size_bytes(size) for field, size in sizes.items() if size is not None},
        **{"cpus": kind.cpus, **numbers},
    )


def _object(step: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    value = step.get(field) or {}
    if not isinstance(value, Mapping):
        raise OptionError(f"{field} must be an object, but got {value!r:.80}.", where=field)
    return value


def _integer(step: Mapping[str, Any], field: str) -> int:
    value = step[field]
    if not isinstance(value, int) or isinstance(value, bool):
        raise OptionError(f"{field} must be a whole number, but got {value!r:.80}.", where=field)
    return value


def _needs(given: Any) -> dict[int | str, Until]:
    found: dict[int | str, Until] = {}
    if given is not None and not isinstance(given, (list, tuple)):
        raise OptionError(f"needs must be a list, but got {given!r:.80}.", where="needs")
    for one in given or ():
        job, until = (one.get("job"), one.get("until", "done")) if isinstance(one, Mapping) else (one, "done")
        if not isinstance(job, (int, str)) or isinstance(job, bool) or until not in ("done", "ended"):
            raise OptionError(
                f"{one!r:.80} is no need of a job.", where="needs",
                hint="Give an id or a name, or {\"job\": id, \"until\": \"ended\"}.",
            )  # fmt: skip
        found[job] = Until(until)
    return found


def _settled(kind: Kind, arguments: Mapping[str, Any], afar: Door | None) -> dict[str, Any]:
    """Make paths independent of the folder in which they were said; who comes from afar must stay in the workspace."""
    out = dict(arguments)
    for name, value in arguments.items():
        argument = kind.arguments[name]
        if argument.type == "array":
            out[name] = [_settled_one(name, argument.items, member, afar) for member in value]
        else:
            out[name] = _settled_one(name, argument.type, value, afar)
    if afar is not None and WITHIN in kind.arguments:
        out[WITHIN] = str(_files(afar))
    return out


def _settled_one(name: str, form: str, value: Any, afar: Door | None) -> Any:
    if form == "objective":
        # With its matrix in place of the file: the worker stands in another folder, and later.
        objective = parse_objective(value, files=afar is None)
        return value if objective.cost_matrix is None else str(objective)
    if form == "code":
        return _code(name, value, afar)
    if form not in ("path", "data", "weights"):
        return value
    if afar is not None:
        return _inside(name, value, form, afar)
    here = Path(value).expanduser()
    return str(here.absolute()) if form == "path" or here.exists() else value


def _code(name: str, value: str, afar: Door | None) -> str:
    if afar is not None:
        raise OptionError("Code can't be named from another machine: to name it is to run it.", where=name)
    place, colon, function = value.rpartition(":")
    return f"{Path(place).expanduser().absolute()}{colon}{function}" if place.endswith(".py") else value


def _files(door: Door) -> Path:
    """The folder that callers from afar may name."""
    return (door.workspace.path / FILES).resolve()


def _inside(name: str, value: str, form: str, door: Door) -> str:
    """A dataset version by its hash, a study, or a path in the folder that callers from afar may name."""
    if not value or not value.isprintable():
        raise OptionError(f"{value!r:.80} is no path.", where=name)
    if form == "data" and "/" not in value:
        version = door.version(value)
        return f"{version.dataset}@{version.hash}"  # no file of the worker's folder is called so
    if form == "weights" and "/" not in value and _is_study(value, door):
        return value
    ours = _files(door)
    path = (ours / value).resolve()
    if not path.is_relative_to(ours) or path == ours:
        raise OptionError(
            "From afar only files in the workspace's own folder for them can be named.", where=name,
            hint=f"Give a path relative to {FILES}/ in the workspace.",
        )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    return str(path)


def _is_study(name: str, door: Door) -> bool:
    """Whether there is such a study; raises `RoleError` where the caller may not read the data that it learned from."""
    try:
        record = door.workspace.metadata.get_study(name)
    except NotFoundError:
        return False
    dataset = record.settings.get(SOURCE, {}).get("dataset")
    if dataset:
        door.may_see(dataset)
    return True
