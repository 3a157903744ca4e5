"""Commands on a bundle: predict, evaluate, export, verify."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tidemill.cli import options
from tidemill.cli.errors import FAILED, Exit, for_people


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("predict", epilog="Example: tidemill predict income.tm new.csv --out answers.csv")(predict)
    app.command("evaluate", epilog="Example: tidemill evaluate income.tm test.csv")(evaluate)
    app.command("export", epilog="Example: tidemill export income.tm --to triton --out repository")(export)
    app.command("verify", epilog="Example: tidemill verify income.tm")(verify)
    app.command("sign", epilog="Example: tidemill sign income.tm --key owner.pem --new-key")(sign)


def predict(
    bundle: options.Bundle,
    data: Annotated[str, typer.Argument(metavar="DATA", help="File with the rows to predict; or a folder of images.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="CSV to write; default standard output.")] = None,
    images: options.Images = None,
    engine: options.Engine = "inprocess",
    ray_address: options.RayAddress = None,
    as_json: options.Json = False,
) -> None:
    """Predict the rows of a file: `prediction`, then `proba_<label>` for each class."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.core.errors import OptionError
        from tidemill.sdk.bundles import predict_to_csv, predict_to_records

        unread: list[str] = []
        if as_json and out is None:
            if engine != "inprocess" or ray_address is not None:
                raise OptionError("Answers of an engine are written as CSV.", where="--json", hint="Add --out, too.")
            show.emit_json(predict_to_records(bundle, data, images=images, on_unreadable=unread.append))
            _say_unread(unread)
            return
        rows = predict_to_csv(
            bundle, data, out, images=images, on_unreadable=unread.append, engine=engine, ray_address=ray_address
        )
        _say_unread(unread)
        if as_json:
            show.emit_json({"rows": rows, "path": str(out), "not_read": unread})
        elif out is not None:
            print(f"{rows:,} rows written to {out}")


def _say_unread(unread: list[str]) -> None:
    """Name the images that can't be read, then count them."""
    for text in unread:
        print(f"not read: {text}", file=sys.stderr)
    if unread:
        noun = "image" if len(unread) == 1 else "images"
        print(f"{len(unread):,} {noun} can't be read.", file=sys.stderr)


def evaluate(
    bundle: options.Bundle,
    data: Annotated[str, typer.Argument(metavar="DATA", help="Rows with their target; or images in class folders.")],
    images: options.Images = None,
    as_json: options.Json = False,
) -> None:
    """Compare a bundle's predictions with the known target of a file."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.bundles import evaluate as run

        gaps: list[Any] = []
        metrics = run(bundle, data, images=images, on_gap=gaps.append)
        for gap in gaps:
            print(gap, file=sys.stderr)
        if as_json:
            show.emit_json({**metrics, "gaps": [gap.to_json() for gap in gaps]})
        else:
            show.table([{"metric": k, "value": v} for k, v in metrics.items()], title=f"{bundle} on {data}")


def export(
    bundle: options.Bundle,
    to: Annotated[str, typer.Option("--to", help="onnx, mlflow, triton, docker, kserve, systemd or openvino.")],
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


def verify(
    bundle: options.Bundle,
    signature: Annotated[
        Path | None, typer.Option("--signature", help="Check this OpenSSF model signature, too.")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Public key of who should have signed, a PEM file.")] = None,
    as_json: options.Json = False,
) -> None:
    """Check all of a bundle: every hash, the graph, and its golden answers; and a signature."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.core.errors import OptionError
        from tidemill.sdk.bundles import check_signature
        from tidemill.sdk.bundles import verify as run

        if (signature is None) != (key is None):
            raise OptionError("A signature is checked against a key.", hint="Give both --signature and --key.")
        findings = run(bundle)
        if signature is not None and key is not None and (problem := check_signature(bundle, signature, key)):
            findings.append(problem)
        if as_json:
            show.emit_json({"ok": not findings, "problems": findings})
        elif findings:
            for finding in findings:
                print(f"✗ {finding}")
        else:
            print(f"{bundle} is whole: every hash fits, the graph is valid, and the golden answers are the same.")
            if signature is not None:
                print(f"The signature fits the bundle and the key: {signature}")
        if findings:
            raise Exit(FAILED)


def sign(
    bundle: options.Bundle,
    key: Annotated[Path, typer.Option("--key", help="Private key: PEM, elliptic curve, no password.")],
    new_key: Annotated[
        bool, typer.Option("--new-key", help="Make the pair first: KEY, and KEY.pub beside it.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Default: the folder's name with .sig.")] = None,
    as_json: options.Json = False,
) -> None:
    """Sign a bundle so that others can check it: an OpenSSF model signature beside the folder."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk.bundles import sign as run

        signature, public = run(bundle, key, out, new_key=new_key)
        if as_json:
            show.emit_json({"signature": str(signature), "public_key": None if public is None else str(public)})
            return
        if public is not None:
            print(f"Made the key {key}; give others {public}")
        print(f"Signed: {signature}")
