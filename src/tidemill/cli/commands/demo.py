"""``tidemill demo``: the main job on real data, end to end."""

from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli import options
from tidemill.cli.errors import for_people


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("demo", epilog="Example: tidemill demo --time 30s --out demo")(demo)


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for everything the demo writes.")] = Path(
        "tidemill-demo"
    ),
    time_: Annotated[str, typer.Option("--time", help="Limit of the search.")] = "60s",
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Run the main job on real data: fit, leaderboard, export, predict in a bare environment, report."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.cli.progress import progress
        from tidemill.sdk.demo import run_demo

        with progress(as_json=as_json, quiet=quiet) as listener:
            result = run_demo(out, time=time_, on_event=listener)
        if as_json:
            show.emit_json_line({"event": "result", **result.to_json()})
        elif not quiet:
            show.table(result.leaderboard[:8], title="Leaderboard")
            print()
            print(result.in_words())
