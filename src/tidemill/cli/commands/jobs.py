"""The queue of jobs: submit, list, show, log, cancel, retry, kinds, quota; and emit, for other schedulers."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tidemill.cli import options
from tidemill.cli.errors import for_people

Job = Annotated[int, typer.Argument(metavar="JOB", help="Its number; see `tidemill jobs list`.")]


def group() -> typer.Typer:
    """Give the commands."""
    group = typer.Typer()
    group.command("submit", epilog="Example: tidemill jobs submit fit data=train.csv target=y time=2h --priority 2")(
        submit
    )
    group.command("list", epilog="Example: tidemill jobs list --state open")(list_)
    group.command("show", epilog="Example: tidemill jobs show 7")(show_)
    group.command("log", epilog="Example: tidemill jobs log 7 --follow")(log)
    group.command("cancel", epilog="Example: tidemill jobs cancel 7")(cancel)
    group.command("retry", epilog="Example: tidemill jobs retry 7")(retry)
    group.command("kinds", epilog="Example: tidemill jobs kinds")(kinds)
    group.command("quota", epilog="Example: tidemill jobs quota mia --running 2 --queued 50")(quota)
    group.command(
        "emit",
        epilog="Example: tidemill jobs emit slurm --nodes 2 --devices 4 --time 8h -- train.py --epochs 3",
    )(emit)
    return group


def submit(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="What to run; see `tidemill jobs kinds`.")] = "",
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME=VALUE…", help="Arguments of the kind; lists by naming one again, or as JSON."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="Queue all jobs of a YAML or JSON file, which may need each other.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="For people.")] = "",
    after: Annotated[list[int] | None, typer.Option("--after", help="Run once this job is done; several.")] = None,
    after_end: Annotated[
        list[int] | None, typer.Option("--after-end", help="Run once this job has ended, whatever came of it; several.")
    ] = None,
    priority: Annotated[int, typer.Option("--priority", help="A point counts as ten minutes of waiting.")] = 0,
    cpus: Annotated[
        int | None,
        typer.Option("--cpus", min=0, help="Cores that it uses; 0: all of its worker's. Default 1, of a fit 0."),
    ] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", help="What it will probably hold, as 4GB; a limit of the trials of a fit.")
    ] = None,
    devices: Annotated[int, typer.Option("--devices", min=0, help="Accelerators that it uses.")] = 0,
    device_memory: Annotated[
        str | None, typer.Option("--device-memory", help="What it will hold on each; without it takes whole ones.")
    ] = None,
    time: Annotated[str | None, typer.Option("--time", help="Of all attempts together, as 2h.")] = None,
    attempts: Annotated[int, typer.Option("--attempts", min=1, help="How often it is tried.")] = 3,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Queue a job. `tidemill worker` runs it."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.core.errors import OptionError
        from tidemill.sdk import jobs

        if (file is None) == (not kind):
            raise OptionError("Name a kind of job, or a file with --file.", hint="See: tidemill jobs kinds")
        if file is not None:
            made = jobs.submit_jobs(file, workspace=workspace)
        else:
            needs = [*(after or []), *({"job": n, "until": "ended"} for n in after_end or [])]
            made = [
                jobs.submit_job(
                    kind, _arguments(kind, arguments or []), name=name, needs=needs, priority=priority, cpus=cpus,
                    memory=memory, devices=devices, device_memory=device_memory, time=time, attempts=attempts,
                    workspace=workspace,
                )
            ]  # fmt: skip
        if as_json:
            show.emit_json(made)
            return
        for job in made:
            cores = {0: "all cores of its worker", 1: "1 core"}.get(job["cpus"], f"{job['cpus']} cores")
            print(f"Job {job['job']} ({job['name']}) is {job['state']}. It gets {cores} (--cpus).")
        print("A worker runs it: tidemill worker")


def list_(
    state: Annotated[
        list[str] | None, typer.Option("--state", help="Only these; open: all that have not ended; several.")
    ] = None,
    owner: Annotated[str | None, typer.Option("--owner", help="Only this owner's.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Only of this kind.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="So many at most.")] = 50,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """List jobs, newest first."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.jobs import list_jobs

        rows = list_jobs(states=state or (), owner=owner, kind=kind, limit=limit, workspace=workspace)
        if as_json:
            show.emit_json(rows)
        elif rows:
            columns = ["job", "name", "kind", "state", "position", "owner", "attempt", "time", "note"]
            show.table([_line(row) for row in rows], columns=columns, title="Jobs")
        else:
            print("No jobs. Queue one with: tidemill jobs submit KIND")


def show_(job: Job, workspace: options.Workspace = None, as_json: options.Json = False) -> None:
    """Show a job, its attempts and what came of it."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.jobs import show_job

        found = show_job(job, workspace=workspace)
        if as_json:
            show.emit_json(found)
            return
        facts = {k: v for k, v in found.items() if k not in ("attempts", "result", "arguments") and v not in (None, "")}
        show.table([{"fact": k, "value": _text(v)} for k, v in facts.items()], title=f"Job {job}")
        print(f"arguments: {json.dumps(found['arguments'])}")
        if found["result"] is not None:
            print(f"result: {json.dumps(show.finite(found['result']), indent=2)}")
        if found["attempts"]:
            show.table(found["attempts"], title="Attempts")


def log(
    job: Job,
    attempt: Annotated[int | None, typer.Option("--attempt", min=1, help="Default the last.")] = None,
    offset: Annotated[int, typer.Option("--offset", help="Byte to begin at; a negative one counts from the end.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Print what a job has printed."""
    with for_people(as_json):
        import sys
        import time

        from tidemill.cli import show
        from tidemill.sdk.jobs import job_log

        number = attempt
        while True:
            piece = job_log(job, attempt=number, offset=offset, workspace=workspace)
            if as_json:
                show.emit_json_line(piece)
            else:
                sys.stdout.write(piece["text"])
                sys.stdout.flush()
            number, offset, more = piece["attempt"], piece["offset"], piece["offset"] < piece["size"]
            if more:
                continue
            if follow and piece["over"] and attempt is None and number < piece["attempts"]:
                number, offset = number + 1, 0  # each attempt has a log of its own
            elif piece["over"] or not follow:
                return
            else:
                time.sleep(0.5)


def cancel(
    job: Job,
    force: Annotated[bool, typer.Option("--force", help="Kill it without asking it to stop.")] = False,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """End a job: one that runs is asked to stop, then told by SIGTERM, then killed."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.jobs import cancel_job

        found = cancel_job(job, force=force, workspace=workspace)
        if as_json:
            show.emit_json(found)
        else:
            print(f"Job {job} is {found['state']}.")


def retry(
    job: Job,
    attempts: Annotated[int, typer.Option("--attempts", min=1, help="How often it may be tried from now on.")] = 3,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Queue a job again that did not succeed; it goes on from its checkpoint."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.jobs import retry_job

        found = retry_job(job, attempts=attempts, workspace=workspace)
        if as_json:
            show.emit_json(found)
        else:
            print(f"Job {job} is {found['state']}.")


def kinds(as_json: options.Json = False) -> None:
    """List what can be queued, with its arguments."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.jobs import list_kinds

        found = list_kinds()
        if as_json:
            show.emit_json(found)
            return
        for kind in found:
            print(f"{kind['kind']}: {kind['about']}")
            for name, one in kind["arguments"].items():
                form = f"{one['type']} of {one['items']}" if "items" in one else one["type"]
                notes = [form, *(["required"] if one["required"] else []), *(["not over HTTP"] if one["local"] else [])]
                print(f"  {name} ({', '.join(notes)}): {one['about']}")


def quota(
    owner: Annotated[str, typer.Argument(metavar="[OWNER]", help="Whose; *: all who have none of their own.")] = "",
    running: Annotated[int | None, typer.Option("--running", min=0, help="Most jobs that run at a time.")] = None,
    queued: Annotated[int | None, typer.Option("--queued", min=0, help="Most jobs that wait.")] = None,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """List the quotas, or set that of an owner; without numbers it is taken back."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.jobs import list_quotas, set_quota

        if owner:
            set_quota(owner, running=running, queued=queued, workspace=workspace)
        rows = list_quotas(workspace)
        if as_json:
            show.emit_json(rows)
        elif rows:
            show.table(rows, title="Quotas")
        else:
            print("No quotas: everybody may have any number of jobs.")


def emit(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="torchrun, slurm, kubernetes or skypilot.")],
    command: Annotated[list[str], typer.Argument(metavar="COMMAND…", help="A Python program; write -- before it.")],
    out: Annotated[Path | None, typer.Option("--out", help="File to write; default standard output.")] = None,
    name: Annotated[str, typer.Option("--name", help="Of the job there.")] = "tidemill",
    nodes: Annotated[int, typer.Option("--nodes", min=1, help="Machines.")] = 1,
    processes: Annotated[int, typer.Option("--processes", min=0, help="Processes on each, without devices.")] = 0,
    devices: Annotated[int, typer.Option("--devices", min=0, help="Accelerators of each.")] = 0,
    accelerator: Annotated[str, typer.Option("--accelerator", help="Their name, as H100.")] = "",
    cpus: Annotated[int, typer.Option("--cpus", min=0, help="Cores of each.")] = 0,
    memory: Annotated[str | None, typer.Option("--memory", help="Memory of each, as 64GB.")] = None,
    time: Annotated[str | None, typer.Option("--time", help="Ended after so long.")] = None,
    queue: Annotated[str, typer.Option("--queue", help="Partition of Slurm, local queue of Kueue.")] = "",
    image: Annotated[str, typer.Option("--image", help="Container image.")] = "",
    restarts: Annotated[int, typer.Option("--restarts", min=0, help="Of all processes, after one has died.")] = 3,
    as_json: options.Json = False,
) -> None:
    """Write a launch file that runs a command under another scheduler. It is not run, and says so."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.jobs import emit_launch

        text = emit_launch(
            target, command, name=name, nodes=nodes, processes=processes, devices=devices, accelerator=accelerator,
            cpus=cpus, memory=memory, time=time, queue=queue, image=image, restarts=restarts,
        )  # fmt: skip
        if out is not None:
            out.write_text(text, encoding="utf-8")
        if as_json:
            show.emit_json({"target": target, "file": None if out is None else str(out), "text": text})
        elif out is not None:
            from tidemill.jobs.emit import TARGETS

            print(f"Wrote {out}. Start it with {TARGETS[target].start.format(file=out)}")
        else:
            print(text, end="")


def _arguments(kind: str, words: list[str]) -> dict[str, Any]:
    """Read ``name=value``; a value is a text where the kind wants one, and otherwise JSON where it reads so."""
    from tidemill.core.errors import OptionError
    from tidemill.sdk.jobs import list_kinds

    forms: dict[str, Any] = next((one["arguments"] for one in list_kinds() if one["kind"] == kind), {})
    found: dict[str, Any] = {}
    for word in words:
        name, sign, text = word.partition("=")
        if not sign or not name:
            raise OptionError(f"{word!r} is not of the form name=value.", where="NAME=VALUE")
        form = forms.get(name, {}).get("type")
        value = _value(text, plain=form not in (None, "number", "integer", "boolean", "object", "array"))
        if form == "array":
            found[name] = [*found.get(name, []), *(value if isinstance(value, list) else [text])]
        elif name in found:
            raise OptionError(f"{name} is given twice.", where="NAME=VALUE")
        else:
            found[name] = value
    return found


def _value(text: str, *, plain: bool) -> Any:
    if plain and not text.startswith('"'):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _line(row: dict[str, Any]) -> dict[str, Any]:
    from tidemill.cli import show

    share, message = row["progress"].get("share"), row["progress"].get("message", "")
    told = f"{share:.0%} {message}".strip() if share is not None else message
    again = f"again at {row['again']}" if row["again"] else ""
    running = row["state"] in ("running", "stopping")
    note = told if running else "; ".join(text for text in (row["error"] or "", again) if text)
    return {**row, "time": show.duration(row["seconds"]) if row["seconds"] else None, "note": note[:90]}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
