"""``tidemill fit``: data and a question in, a bundle and a report out."""

import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from tidemill.cli import options
from tidemill.cli.errors import for_people

EXAMPLES = """
[bold]Examples[/bold]

  tidemill fit train.csv --target income --time 60s --out income.tm

  tidemill fit train.csv --target y --objective "maximize roc_auc; latency_ms <= 1; recall\\[fraud] >= 0.9"

  tidemill fit "SELECT * FROM loans" --database sqlite:///bank.db --target bad --test-size 0.2

  tidemill fit photos/ --time 10m --out photos.tm

  tidemill fit labels.csv --target species --images photos/ --weights resnet/ --out species.tm

  tidemill fit reviews.csv --target tags --kind text-multilabel --out tags.tm

  tidemill fit train.csv --target y --engine ray --ray-address head:6379 --out y.tm

  tidemill fit --resume income-1 --time 5m --out income.tm

  tidemill fit --resume lines-1 --trials 0 --decode beam --out reader.tm
"""


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command(
        "fit", epilog=EXAMPLES, help="Search for the best model of a table or of images, and leave it as a bundle."
    )(fit)


def fit(
    data: Annotated[
        str | None,
        typer.Argument(metavar="DATA", help="CSV, TSV, Parquet, Arrow, JSON lines, Excel; SQL; or a folder of images."),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="The column to predict; several of 0 and 1: a,b,c.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the bundle.")] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--kind",
            help="binary, multiclass, regression, {image,text}-{classification,regression,multilabel}, "
            "table-{classification,regression}, text-recognition.",
        ),
    ] = None,
    separator: Annotated[
        str | None,
        typer.Option(
            "--separator",
            help="Of several labels in a cell: a sign such as ; or |, or json; default by the cells.",
        ),
    ] = None,
    positive: Annotated[str | None, typer.Option("--positive", help="The positive class of a binary task.")] = None,
    objective: options.Objective = None,
    time_: Annotated[str | None, typer.Option("--time", help="Limit of the whole command: 60s, 5m, 1h.")] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", help="Limit of finished trials; 0 with --resume searches nothing.")
    ] = None,
    memory: Annotated[str | None, typer.Option("--memory", help="Limit of all trials together: 4GB.")] = None,
    cpus: Annotated[int | None, typer.Option("--cpus", help="Cores to use; default all.")] = None,
    device: Annotated[
        str, typer.Option("--device", help="What nets are trained on: auto, cpu, cuda or cuda:N.")
    ] = "auto",
    plan: Annotated[
        Path | None,
        typer.Option("--plan", help="Place every training of a net as this JSON of `tidemill plan --out` says."),
    ] = None,
    test: Annotated[str | None, typer.Option("--test", help="File with locked test rows.")] = None,
    test_size: Annotated[
        float | None, typer.Option("--test-size", help="Share of rows to lock away as the test slice.")
    ] = None,
    group: Annotated[str | None, typer.Option("--group", help="Rows of one group stay in one fold.")] = None,
    time_column: Annotated[
        str | None, typer.Option("--time-column", help="Folds and test slice follow this column's order.")
    ] = None,
    column_type: Annotated[
        list[str] | None, typer.Option("--type", help="Override a column's type: --type zip=category")
    ] = None,
    family: Annotated[list[str] | None, typer.Option("--family", help="Only these model families.")] = None,
    schedule: Annotated[
        str,
        typer.Option(
            "--schedule",
            help="full: every config on all rows; rows: on a part first; rungs, for nets: few epochs first.",
        ),
    ] = "full",
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="With --schedule rungs: epochs of a whole training.")
    ] = None,
    brackets: Annotated[
        int | None,
        typer.Option("--brackets", min=1, help="With --schedule rungs: trials begin on so many rungs; default 1."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option("--images", help="Folder or zip archive with the image files that a table names.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", help="Resize images to so many pixels a side; default by the images.")
    ] = None,
    ignore_case: Annotated[
        bool, typer.Option("--ignore-case", help="Read lines of text in lower case: case counts nothing.")
    ] = False,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            help="Trained weights to begin from, or to read columns by: folder or file of a net or text encoder, its "
            "name on the Hugging Face hub, or a study.",
        ),
    ] = None,
    decode: options.Decode = "greedy",
    database: Annotated[str | None, typer.Option("--database", help="URL for an SQL query as DATA.")] = None,
    sheet: Annotated[str | None, typer.Option("--sheet", help="Sheet of an Excel file.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the study.")] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="STUDY", help="Go on with a study, whose data and question stay.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Same seed, same trials.")] = 0,
    engine: options.Engine = "process",
    ray_address: options.RayAddress = None,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write NAME-report.html beside the bundle.")
    ] = True,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Search, export and report; the help text stands beside the command's name."""
    started = time.monotonic() - _process_age_s()
    with for_people(as_json):
        from tidemill.cli.progress import progress
        from tidemill.sdk.fit import FitOptions, fit_to_bundle, parse_types

        fit_options = FitOptions(
            kind=kind,
            separator=separator,
            positive=positive,
            objective=objective,
            time=time_,
            trials=trials,
            memory=memory,
            cpus=cpus,
            device=device,
            plan=plan,
            test=test,
            test_size=test_size,
            group=group,
            time_column=time_column,
            types=parse_types(column_type or ()),
            families=tuple(family) if family else None,
            schedule=schedule,
            epochs=epochs,
            brackets=brackets,
            images=images,
            image_size=image_size,
            ignore_case=ignore_case,
            weights=tuple(weights or ()),
            decode=decode,
            database=database,
            sheet=sheet,
            name=name,
            seed=seed,
            engine=engine,
            ray_address=ray_address,
            started=started,
        )
        with progress(as_json=as_json, quiet=quiet) as listener:
            result = fit_to_bundle(
                data,
                target,
                out=out,
                options=fit_options,
                resume=resume,
                workspace=workspace,
                report=report,
                on_event=listener,
            )
        _show(result, as_json=as_json, quiet=quiet)


def _show(result: Any, *, as_json: bool, quiet: bool) -> None:
    from tidemill.cli import show

    if as_json:
        show.emit_json_line({"event": "result", **result.to_json()})
    elif not quiet:
        print()
        show.table(result.study.leaderboard()[:8], title=f"Leaderboard of study {result.study.name}")
        print()
        print(result.in_words())


def _process_age_s() -> float:
    """Seconds since this process began, where the system tells (Linux): the time limit covers start-up too."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    except OSError:
        return 0.0
    return max(0.0, uptime - int(fields[19]) / os.sysconf("SC_CLK_TCK"))  # the 22nd field of all: start in ticks
