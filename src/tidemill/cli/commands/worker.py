"""The command `worker`."""

from typing import Annotated, Any

import typer

from tidemill.cli import options
from tidemill.cli.errors import for_people


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("worker", epilog="Example: tidemill worker --cpus 4 --until-idle")(worker)


def worker(
    cpus: Annotated[int | None, typer.Option("--cpus", min=1, help="Cores for all jobs together; default all.")] = None,
    memory: Annotated[
        str | None, typer.Option("--memory", help="Memory for all jobs together; default nine tenths of all.")
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option("--device", help="An accelerator that may be used, cuda:0; several. Default all."),
    ] = None,
    no_devices: Annotated[bool, typer.Option("--no-devices", help="Use no accelerator.")] = False,
    until_idle: Annotated[
        bool, typer.Option("--until-idle", help="End when nothing runs and nothing waits that could run here.")
    ] = False,
    grace: Annotated[
        float, typer.Option("--grace", min=0, help="Seconds that a job may take to stop before SIGTERM.")
    ] = 30.0,
    workspace: options.Workspace = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Run queued jobs until Ctrl-C. Jobs that run then go on; the next worker of this machine takes them over."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.jobs import work

        def tell(what: str, job: dict[str, Any] | None, words: str) -> None:
            if quiet:
                return
            if as_json:
                show.emit_json_line({"event": what, "job": job, "message": words})
            elif job is None:
                print(f"{what}: {words}", flush=True)
            else:
                state = job["state"] if what == "ended" else what
                print(f"job {job['job']} ({job['name']}) {state}{f': {words}' if words else ''}", flush=True)

        devices = [] if no_devices else device
        work(
            cpus=cpus, memory=memory, devices=devices, until_idle=until_idle, grace_s=grace, workspace=workspace,
            tell=tell,
        )  # fmt: skip
