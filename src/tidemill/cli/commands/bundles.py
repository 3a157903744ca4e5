"""Commands on a bundle: predict, evaluate, export, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli import options
from tidemill.cli.errors import FAILED, Exit, for_people


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("predict", epilog="Example: tidemill predict income.tm new.csv --out answers.csv")(predict)
    app.command("evaluate", epilog="Example: tidemill evaluate income.tm test.csv")(evaluate)
    app.command("export", epilog="Example: tidemill export income.tm --to triton --out repository")(export)
    app.command("verify", epilog="Example: tidemill verify income.tm")(verify)


def predict(
    bundle: options.Bundle,
    data: Annotated[str, typer.Argument(metavar="DATA", help="File with the rows to predict.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="CSV to write; default standard output.")] = None,
    as_json: options.Json = False,
) -> None:
    """Predict the rows of a file: `prediction`, then `proba_<label>` for each class."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.bundles import predict_to_csv, predict_to_records

        if as_json and out is None:
            show.emit_json(predict_to_records(bundle, data))
            return
        rows = predict_to_csv(bundle, data, out)
        if as_json:
            show.emit_json({"rows": rows, "path": str(out)})
        elif out is not None:
            print(f"{rows:,} rows written to {out}")


def evaluate(
    bundle: options.Bundle,
    data: Annotated[str, typer.Argument(metavar="DATA", help="File with rows and their target.")],
    as_json: options.Json = False,
) -> None:
    """Compare a bundle's predictions with the known target of a file."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.bundles import evaluate as run

        metrics = run(bundle, data)
        if as_json:
            show.emit_json(metrics)
        else:
            show.table([{"metric": k, "value": v} for k, v in metrics.items()], title=f"{bundle} on {data}")


def export(
    bundle: options.Bundle,
    to: Annotated[str, typer.Option("--to", help="onnx, mlflow, triton, docker, kserve or systemd.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File or folder to write.")],
    as_json: options.Json = False,
) -> None:
    """Write a bundle in the form that another tool wants."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.bundles import export as run

        path = run(bundle, to, out)
        if as_json:
            show.emit_json({"target": to, "path": str(path)})
        else:
            print(f"Written: {path}")


def verify(bundle: options.Bundle, as_json: options.Json = False) -> None:
    """Check all of a bundle: every hash, the graph, and its golden answers."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.bundles import verify as run

        findings = run(bundle)
        if as_json:
            show.emit_json({"ok": not findings, "problems": findings})
        elif findings:
            for finding in findings:
                print(f"✗ {finding}")
        else:
            print(f"{bundle} is whole: every hash fits, the graph is valid, and the golden answers are the same.")
        if findings:
            raise Exit(FAILED)
