"""Commands that read what searches have found: studies, leaderboard, show, pareto, reobjective, report."""

from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli import options
from tidemill.cli.errors import for_people


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("studies", epilog="Example: tidemill studies --json")(studies)
    app.command("leaderboard", epilog="Example: tidemill leaderboard income-1 --top 5")(leaderboard)
    app.command("show", epilog="Example: tidemill show income-1 7")(show_trial)
    app.command("pareto", epilog="Example: tidemill pareto income-1 --cost size_bytes")(pareto)
    app.command(
        "reobjective",
        epilog="Example: tidemill reobjective income-1 --objective 'minimize cost(matrix.csv); params <= 1e5' "
        "--out cheap.tm",
    )(reobjective)
    app.command("report", epilog="Example: tidemill report income-1 --out report.html")(report)


def studies(workspace: options.Workspace = None, as_json: options.Json = False) -> None:
    """List the studies of the workspace."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.studies import list_studies

        rows = list_studies(workspace)
        if as_json:
            show.emit_json(rows)
        elif rows:
            show.table(rows, title="Studies")
        else:
            print("No studies yet. Start one with: tidemill fit DATA --target COLUMN")


def leaderboard(
    study: options.Study,
    objective: options.Objective = None,
    top: Annotated[int, typer.Option("--top", min=1, help="So many rows.")] = 20,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Rank a study's trials, best first, under its own or another objective."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.studies import open_study

        with open_study(study, workspace) as opened:
            rows = opened.leaderboard(objective)[:top]
            if as_json:
                show.emit_json(rows)
            else:
                show.table(rows, title=f"{opened.name}: {objective or opened.objective}")


def show_trial(
    study: options.Study,
    trial: Annotated[int | None, typer.Argument(metavar="[TRIAL]", help="Number of a trial.")] = None,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Show everything that is kept of a study, or of one of its trials."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.studies import open_study

        with open_study(study, workspace) as opened:
            facts = opened.describe() if trial is None else opened.describe_trial(trial)
            if as_json:
                show.emit_json(facts)
            else:
                curve = facts.pop("curve", [])
                show.table([{"what": k, "value": _plain(v)} for k, v in facts.items()])
                if len(curve) > 1:
                    values = [value for _, value in curve]
                    ends = (
                        f"{show.number(values[0])} at step {curve[0][0]} to {show.number(values[-1])} at {curve[-1][0]}"
                    )
                    print(f"Learning curve: {show.sparkline(values)}  {ends}")


def _plain(value: object) -> str:
    from tidemill.cli.show import cell

    if isinstance(value, dict):
        return "\n".join(f"{k}: {cell(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(v) for v in value)
    return cell(value)


def pareto(
    study: options.Study,
    cost: Annotated[str, typer.Option("--cost", help="latency_ms, size_bytes, params or flops.")] = "latency_ms",
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """List the trials that no other trial beats in both quality and cost."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.studies import open_study

        with open_study(study, workspace) as opened:
            rows = opened.pareto(cost)
            if as_json:
                show.emit_json(rows)
            else:
                show.table(rows, title=f"{opened.name}: quality against {cost}")


def reobjective(
    study: options.Study,
    objective: Annotated[str, typer.Option("--objective", help="The new objective.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the bundle.")] = None,
    decode: options.Decode = "greedy",
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Choose another model for another objective from what is known already; nothing is trained."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.studies import open_study

        with open_study(study, workspace) as opened:
            chosen = opened.reobjective(objective).best
            if out is not None:
                chosen.export(out, decode=decode)
            if as_json:
                show.emit_json(chosen.to_json())
            else:
                print(chosen.in_words())
                if out is not None:
                    print(f"Bundle: {out}")


def report(
    study: options.Study,
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")] = Path("report.html"),
    objective: options.Objective = None,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Write the report of a study as one self-contained HTML file."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.studies import open_study

        with open_study(study, workspace) as opened:
            path = opened.report(out, objective=objective)
            if as_json:
                show.emit_json({"report": str(path)})
            else:
                print(f"Report: {path}")
