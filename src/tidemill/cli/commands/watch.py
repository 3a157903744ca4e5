"""The command that shows what an endpoint does: watch."""

from typing import Annotated, Any

import typer

from tidemill.cli import options
from tidemill.cli.commands.data import words
from tidemill.cli.errors import for_people


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("watch", epilog="Example: tidemill watch fraud --hours 6")(watch)


def watch(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of an endpoint.")],
    hours: Annotated[float, typer.Option("--hours", min=0.0, help="How far back to look, and to keep from.")] = 24.0,
    keep_as: Annotated[
        str | None, typer.Option("--keep-as", help="Keep the captured rows as a version of this dataset.")
    ] = None,
    reason: Annotated[
        list[str] | None, typer.Option("--reason", help="With --keep-as: only rows kept for this reason; repeat it.")
    ] = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Show an endpoint's traffic, latency, drift, and estimated and true accuracy."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.watch import captured_version
        from tidemill.sdk.watch import watch as look

        found = look(endpoint, hours=hours, workspace=workspace)
        if keep_as is not None:
            found["kept"] = captured_version(
                endpoint, name=keep_as, hours=hours, reasons=reason or (), workspace=workspace, actor=actor
            )
        if as_json:
            show.emit_json(found)
        else:
            _show(found)


def _show(found: dict[str, Any]) -> None:
    from tidemill.cli import show

    revisions = found["revisions"]
    if not revisions:
        print(f"{found['endpoint']}: nothing was deployed yet.")
        return
    show.table([_traffic(r) for r in revisions], title=f"{found['endpoint']}: traffic")
    show.table([_quality(r) for r in revisions], title="Accuracy")
    for revision in revisions:
        _drift(revision, found["hours"])
    if found["captured"]:
        print("Captured rows: " + ", ".join(f"{n:,} {k.replace('_', ' ')}" for k, n in found["captured"].items()))
    if kept := found.get("kept"):
        lost = f"; {kept['lost']:,} are left out, their images or texts are gone" if kept["lost"] else ""
        print(f"Kept as {kept['dataset']}@{kept['hash'][:12]}: {kept['rows']:,} rows{lost}")


def _traffic(revision: dict[str, Any]) -> dict[str, Any]:
    total = revision["latency_ms"]["total"]
    return {
        "revision": revision["revision"] or "none",
        "share": revision["traffic"],
        **{k: revision[k] for k in ("requests", "errors", "refusals", "retries", "deaths")},
        "median ms": total["p50"],
        "p99 ms": total["p99"],
        "burn 1h": revision["burn_rate"]["1h"],
        "burn 6h": revision["burn_rate"]["6h"],
    }


def _quality(revision: dict[str, Any]) -> dict[str, Any]:
    values = revision["estimate"].get("values", {})
    return {
        "revision": revision["revision"] or "none",
        "in training": revision["estimate"].get("usual", {}).get("accuracy"),
        "estimated": values.get("accuracy"),
        "true": revision["truth"]["accuracy"],
        "feedback": revision["truth"]["rows"],
        "disagreements": revision["disagreements"],
        "compared": revision["compared"],
        "alarm": revision["estimate"].get("alarm"),
    }


def _drift(revision: dict[str, Any], hours: float) -> None:
    from tidemill.cli import show

    drift = revision["drift"]
    name = revision["revision"] or "none"
    if not drift["watched"]:
        print(f"{name}: {drift['reason']}")
        return
    moved = [c for c in drift["top"] if c["beyond"] or c["name"] in drift["alarms"]]
    if not moved:
        print(f"{name}: no drift in {drift['rows']:,} rows of {show.number(hours)} hours.")
        return
    rows = [
        {
            "column": c["name"],
            "alarm": c["name"] in drift["alarms"],
            "training": show.sparkline(c["plot"]["reference"], width=24),
            "now": show.sparkline(c["plot"]["seen"], width=24),
            "why": c["why"],
        }
        for c in moved
    ]
    show.table(rows, title=f"{name}: drift in {drift['rows']:,} rows of {show.number(hours)} hours")
