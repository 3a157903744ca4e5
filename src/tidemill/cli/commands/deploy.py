"""Commands that change what is served: deploy, traffic, rollback, configure and others; and the audit log."""

from typing import Annotated, Any

import typer

from tidemill.cli import options
from tidemill.cli.errors import for_people

Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of an endpoint; see `tidemill endpoints`.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("deploy", epilog="Example: tidemill deploy fraud.tm --endpoint fraud --canary")(deploy)
    app.command("endpoints", epilog="Example: tidemill endpoints fraud")(endpoints)
    app.command("traffic", epilog="Example: tidemill traffic fraud 0f3a=0.9 77b1=0.1")(traffic)
    app.command("rollback", epilog="Example: tidemill rollback fraud")(rollback)
    app.command("configure", epilog="Example: tidemill configure fraud --capture sample=0.05 --redact name")(configure)
    app.command("undeploy", epilog="Example: tidemill undeploy fraud --revision 0f3a")(undeploy)
    app.command("audit", epilog="Example: tidemill audit --subject fraud --limit 20")(audit)
    app.command("gate", epilog="Example: tidemill gate fraud latency=2 errors=0.005")(gate)


def deploy(
    bundle: options.Bundle,
    endpoint: Annotated[str, typer.Option("--endpoint", "-e", help="Name to serve it under.")],
    canary: Annotated[
        bool, typer.Option("--canary", help="Shift the traffic in gated steps, with automatic rollback.")
    ] = False,
    steps: Annotated[
        str | None, typer.Option("--steps", help="Shares of the canary's steps, for example 0.01,0.05,0.25,1.")
    ] = None,
    step_requests: Annotated[
        int, typer.Option("--step-requests", min=0, help="Answers that each step needs at least.")
    ] = 200,
    step_seconds: Annotated[
        float, typer.Option("--step-seconds", min=0, help="Seconds that each step takes at least.")
    ] = 30.0,
    shadow: Annotated[
        bool, typer.Option("--shadow", help="Send it copies of the requests; its answers are compared, not given.")
    ] = False,
    weight: Annotated[float | None, typer.Option("--weight", help="Share of the traffic, above 0 up to 1.")] = None,
    hold: Annotated[bool, typer.Option("--hold", help="Load it, and give it no traffic.")] = False,
    bulk: Annotated[bool, typer.Option("--bulk", help="Let latency endpoints on the same device go first.")] = False,
    min_replicas: Annotated[int | None, typer.Option("--min-replicas", help="0 lets it scale to zero.")] = None,
    max_replicas: Annotated[int | None, typer.Option("--max-replicas", help="Workers under load.")] = None,
    target_ms: Annotated[float | None, typer.Option("--target-ms", help="Wanted latency.")] = None,
    deadline_ms: Annotated[float | None, typer.Option("--deadline-ms", help="Longest time for a request.")] = None,
    features: Annotated[
        list[str] | None,
        typer.Option("--features", metavar="GROUP", help="Feature group that completes rows by key; repeatable."),
    ] = None,
    wait: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait until it is ready.")] = 60.0,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Serve a bundle under a name. The old revision answers until the new one is proven ready."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.deploy import ServedEndpoint

        given = {
            "min_replicas": min_replicas,
            "max_replicas": max_replicas,
            "target_ms": target_ms,
            "features": features or None,
        }
        settings = {k: v for k, v in {**given, "deadline_ms": deadline_ms}.items() if v is not None}
        result = ServedEndpoint(endpoint, workspace).deploy(
            bundle, canary=_shares(steps) if steps is not None else canary, shadow=shadow, weight=weight, hold=hold,
            step_requests=step_requests, step_seconds=step_seconds, wait_s=wait,
            **settings, **({"priority": "bulk"} if bulk else {}),
        )  # fmt: skip
        if as_json:
            show.emit_json(result)
            return
        print(f"{endpoint}: revision {result['revision']} is {result['state']}.")
        if result["traffic"]:
            print(f"Traffic: {_weights(result['traffic'])}")
        if result["state"] == "checking":
            print(
                "It will be loaded, checked and served when the platform runs: tidemill up"
                if not result["serving"]
                else "It is still being loaded; see: tidemill endpoints"
            )


def endpoints(
    endpoint: Annotated[str | None, typer.Argument(metavar="[ENDPOINT]", help="Show one in full.")] = None,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """List what is served, or show one endpoint with its revisions."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.deploy import ServedEndpoint
        from tidemill.sdk.deploy import endpoints as run

        facts = run(workspace) if endpoint is None else ServedEndpoint(endpoint, workspace).describe()
        if as_json:
            show.emit_json(facts)
        elif isinstance(facts, dict):
            show.table(
                facts["revisions"],
                columns=["id", "state", "weight", "created", "reason"],
                title=f"{endpoint}: revisions",
            )
            plain = {k: v for k, v in facts.items() if k not in ("revisions", "traffic", "name")}
            show.table([{"setting": k, "value": _plain(v)} for k, v in plain.items()])
        elif facts:
            rows = [
                {
                    "endpoint": f["name"],
                    "traffic": _weights(f["traffic"]) or "none",
                    "canary": f"step {f['canary']['step'] + 1} of {len(f['canary']['steps'])}" if f["canary"] else None,
                    "shadow": f["shadow"] or None,
                    "revisions": len(f["revisions"]),
                    "priority": f["priority"],
                }
                for f in facts
            ]
            show.table(rows, title="Endpoints")
        else:
            print("No endpoints yet. Make one with: tidemill deploy BUNDLE --endpoint NAME")


def traffic(
    endpoint: Endpoint,
    weights: Annotated[
        list[str], typer.Argument(metavar="REVISION=WEIGHT...", help="Shares; they are scaled to sum to 1.")
    ],
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Set each revision's share of the traffic. Ends a canary."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.deploy import ServedEndpoint

        result = ServedEndpoint(endpoint, workspace).traffic(dict(_pair(w) for w in weights))
        if as_json:
            show.emit_json({"endpoint": endpoint, "traffic": result})
        else:
            print(f"{endpoint}: {_weights(result)}")


def rollback(
    endpoint: Endpoint,
    to: Annotated[str, typer.Option("--to", help="Revision; default the one before.")] = "",
    reason: Annotated[str, typer.Option("--reason", help="For the log.")] = "rolled back by hand",
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Give all of the traffic to the revision before, at once; ends a canary."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.deploy import ServedEndpoint

        result = ServedEndpoint(endpoint, workspace).rollback(to, reason)
        if as_json:
            show.emit_json(result)
        else:
            print(f"{endpoint}: back from {result['from']} to {result['to']} in {result['seconds'] * 1000:.0f} ms")


def configure(
    endpoint: Endpoint,
    bulk: Annotated[
        bool | None, typer.Option("--bulk/--latency", help="Let latency endpoints go first, or be one of them.")
    ] = None,
    min_replicas: Annotated[int | None, typer.Option("--min-replicas", help="0 lets it scale to zero.")] = None,
    max_replicas: Annotated[int | None, typer.Option("--max-replicas", help="Workers under load.")] = None,
    idle: Annotated[float | None, typer.Option("--idle", help="Seconds after which an idle worker is let go.")] = None,
    target_ms: Annotated[float | None, typer.Option("--target-ms", help="Wanted latency.")] = None,
    deadline_ms: Annotated[float | None, typer.Option("--deadline-ms", help="Longest time for a request.")] = None,
    deterministic: Annotated[
        bool | None, typer.Option("--deterministic/--batches", help="Never put requests together, or do.")
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option("--features", metavar="GROUP", help="Feature groups that complete rows; all that there shall be."),
    ] = None,
    capture: Annotated[
        list[str] | None,
        typer.Option(
            "--capture",
            metavar="NAME=VALUE",
            help="What is kept: sample, confidence, slow_ms, per_hour, days; several.",
        ),
    ] = None,
    redact: Annotated[
        list[str] | None,
        typer.Option("--redact", metavar="COLUMN", help="Never kept; all that there shall be. Several; '' for none."),
    ] = None,
    shadow: Annotated[
        str | None, typer.Option("--shadow", metavar="REVISION", help="Gets copies of the requests; '' ends it.")
    ] = None,
    canary: Annotated[
        str | None, typer.Option("--canary", metavar="REVISION", help="Gets the traffic in gated steps; it is ready.")
    ] = None,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Change the settings of an endpoint, or what a loaded revision gets, without deploying anything."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.core.errors import OptionError
        from tidemill.sdk.deploy import ServedEndpoint

        kept: dict[str, Any] = {name: _whole(value) for name, value in (_pair(word) for word in capture or ())}
        if redact is not None:
            kept["redact"] = [column for column in redact if column]
        given = {
            "priority": None if bulk is None else ("bulk" if bulk else "latency"),
            "min_replicas": min_replicas,
            "max_replicas": max_replicas,
            "idle_s": idle,
            "target_ms": target_ms,
            "deadline_ms": deadline_ms,
            "deterministic": deterministic,
            "features": None if features is None else [name for name in features if name],
            "capture": kept or None,
        }
        settings = {name: value for name, value in given.items() if value is not None}
        if not settings and shadow is None and canary is None:
            raise OptionError("There is nothing to change.", hint="See: tidemill configure --help.")
        served = ServedEndpoint(endpoint, workspace)
        if settings:
            served.configure(**settings)
        if shadow is not None:
            served.shadow(shadow)
        if canary is not None:
            served.canary(canary)
        facts = served.describe()
        if as_json:
            show.emit_json(facts)
        else:
            plain = {k: v for k, v in facts.items() if k not in ("revisions", "name")}
            show.table([{"setting": k, "value": _plain(v)} for k, v in plain.items()], title=endpoint)


def undeploy(
    endpoint: Endpoint,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Forget only this revision, which serves nothing.")
    ] = None,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Stop serving an endpoint. Its history stays in the audit log."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.deploy import ServedEndpoint

        served = ServedEndpoint(endpoint, workspace)
        if revision is None:
            served.undeploy()
        else:
            served.drop(revision)
        if as_json:
            show.emit_json({"endpoint": endpoint, "revision": revision, "gone": True})
        else:
            print(f"{endpoint}: " + ("no longer served" if revision is None else f"revision {revision} is forgotten"))


def gate(
    endpoint: Endpoint,
    bars: Annotated[
        list[str] | None, typer.Argument(metavar="[BAR=VALUE...]", help="Change these; without any, show all.")
    ] = None,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Show or change what sends a canary back: errors, refusals, latency, drift, disagreement, accuracy, deaths."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.deploy import ServedEndpoint

        facts = ServedEndpoint(endpoint, workspace).gate(**dict(_pair(b) for b in bars or ()))
        if as_json:
            show.emit_json(facts)
        else:
            show.table([{"bar": k, "value": v} for k, v in facts.items()], title=f"{endpoint}: gate of a canary")


def audit(
    subject: Annotated[str | None, typer.Option("--subject", help="Of one endpoint or key.")] = None,
    actor: Annotated[str | None, typer.Option("--actor", help="By one person or program.")] = None,
    since: Annotated[float | None, typer.Option("--since", min=0, help="Of the last so many hours.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="So many lines at most.")] = 50,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Show who changed what, and when; newest last."""
    with for_people(as_json):
        import json

        from tidemill.cli import show
        from tidemill.sdk.deploy import audit as run

        hours = None if since is None else since * 3600
        lines = run(workspace, subject=subject, actor=actor, since_s=hours, limit=limit)
        if as_json:
            show.emit_json(lines)
        elif lines:
            show.table([{**line, "facts": json.dumps(line["facts"], default=str)[:200]} for line in lines])
        else:
            print("Nothing was changed yet.")


def _pair(text: str) -> tuple[str, float]:
    from tidemill.core.errors import OptionError

    name, _, weight = text.partition("=")
    try:
        return name, float(weight)
    except ValueError as error:
        raise OptionError(f"Give a name and a number, as in 0f3a=0.9, not {text!r}.") from error


def _whole(value: float) -> float | int:
    """Counts are whole numbers, and are written as such."""
    return int(value) if value.is_integer() else value


def _shares(text: str) -> list[float]:
    from tidemill.core.errors import OptionError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise OptionError(f"Give shares like 0.01,0.05,0.25,1, not {text!r}.", where="--steps") from error


def _weights(traffic: dict[str, float]) -> str:
    return ", ".join(f"{name} {weight:.4g}" for name, weight in sorted(traffic.items(), key=lambda p: -p[1]))


def _plain(value: object) -> str:
    from tidemill.cli.show import cell

    if isinstance(value, dict):
        return "\n".join(f"{k}: {cell(v)}" for k, v in value.items())
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else cell(value if value != "" else None)
