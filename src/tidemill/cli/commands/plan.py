"""The command that plans the training of a deep model: plan."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tidemill.cli import options
from tidemill.cli.errors import for_people


def register(app: typer.Typer) -> None:
    """Add the command to the program."""
    app.command("plan", epilog="Example: tidemill plan model.py:build --hardware 8xh100 --batch 1024")(plan)


def plan(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE.py:FUNCTION",
            help="A function that returns a module, a loss, samples and maybe a recipe and validation samples.",
        ),
    ],
    hardware: Annotated[
        str, typer.Option("--hardware", help="here, a preset (h100, 8xh100, 4x8xh100), or a YAML file.")
    ] = "here",
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Samples of one optimiser step.")] = None,
    optimizer: Annotated[str | None, typer.Option("--optimizer", help="adamw, adam or sgd.")] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")] = None,
    given: Annotated[Path | None, typer.Option("--plan", help="Take the placement of this JSON file.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the plan there, as JSON.")] = None,
    validation: Annotated[bool, typer.Option("--validation", help="There will be evaluations.")] = False,
    probe: Annotated[bool, typer.Option("--probe", help="Run three steps, and remember how far off it was.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Also run the checks P1 to P10 on the plan; an error in one is one here.")
    ] = False,
    skip: Annotated[list[str] | None, typer.Option("--skip", help="With --check: leave a check out, as P3.")] = None,
    folder: Annotated[Path | None, typer.Option("--folder", help="With --check: where checkpoints will be.")] = None,
    time_: Annotated[
        str | None, typer.Option("--time", help="With --check: how long the training may take, as 2h.")
    ] = None,
    workspace: options.Workspace = None,
    as_json: options.Json = False,
) -> None:
    """Say where a deep model would be trained, and why: memory, time, and what was not chosen."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.core.errors import OptionError
        from tidemill.sdk.plan import check_training, plan_training, refuse_training

        alone = [word for word, value in (("--skip", skip), ("--folder", folder), ("--time", time_)) if value]
        if alone and not check:
            raise OptionError(f"{alone[0]} is for the checks.", hint="Add --check, or leave it out.")
        recipe: dict[str, Any] = {"batch": batch, "optimizer": optimizer, "precision": precision}
        found = plan_training(
            source,
            hardware=hardware,
            given=given,
            out=out,
            probe=probe,
            validation=validation,
            workspace=workspace,
            **recipe,
        )
        if check:
            found["checks"] = check_training(
                source,
                skip=skip or (),
                folder=folder,
                time=time_,
                placement=found["placement"],
                hardware=hardware,
                **recipe,
            )
        if as_json:
            show.emit_json(found)
        else:
            _show(found)
        refuse_training(found.get("checks", ()))


def _show(found: dict[str, Any]) -> None:
    from tidemill.cli import show

    where, estimate = found["hardware"], found["estimate"]
    print(f"{found['parameters']:,} parameters, batches of {found['batch']}, {found['precision']}, on {where['name']}")
    print(f"Chosen: {_words(found)}")
    print(f"        {found['reason']}")
    memory = {n: v for n, v in estimate["memory"].items() if v}
    show.table([{n: show.size(v) for n, v in memory.items()}], title="Memory of each device")
    show.table([{n: f"{1000 * v:.2f} ms" for n, v in estimate["time"].items()}], title="Time of a step")
    rows = [
        {
            "not chosen": _words(other),
            "memory": show.size(other["estimate"]["memory_bytes"]),
            "step": f"{1000 * other['estimate']['step_s']:.2f} ms",
            "why": other["reason"],
        }
        for other in found["rejected"]
    ]
    if rows:
        show.table(rows)
    for note in found["notes"]:
        print(note)
    if "probe" in found:
        done = found["probe"]
        for other in done["dropped"]:
            print(f"Dropped: {_words(other)}. {other['reason']}")
        print(f"Three steps took {1000 * done['step_s']:.2f} ms each and {show.size(done['memory_bytes'])}.")
    if found.get("checks"):
        columns = ("code", "subject", "state", "message")
        show.table([{n: line[n] for n in columns} for line in found["checks"]], title="Checks")


def _words(found: dict[str, Any]) -> str:
    pieces = found["estimate"]["pieces"]
    size = found["placement"]["micro_batch"]
    return f"{found['describe']}, {pieces} {'piece' if pieces == 1 else 'pieces'} of {size}"
