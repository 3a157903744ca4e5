"""Rows chosen for one need: match, compare."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tidemill.cli import options
from tidemill.cli.commands.data import words
from tidemill.cli.errors import for_people

AsOf = Annotated[str | None, typer.Option("--as-of", help="A time like 2026-11-01T00:00:00Z: what was known then.")]
Size = Annotated[int | None, typer.Option("--size", help="At most so many rows.")]
Balance = Annotated[str | None, typer.Option("--balance", help="Column whose values become equally frequent.")]
Stratify = Annotated[str | None, typer.Option("--stratify", help="Columns whose shares are kept, with commas.")]
SimilarTo = Annotated[
    str | None, typer.Option("--similar-to", help="Nearest first to the rows on which this condition is true.")
]
Over = Annotated[str | None, typer.Option("--over", help="With --similar-to: numeric columns, with commas.")]
Metric = Annotated[str, typer.Option("--metric", help="With --similar-to: l2 or cosine.")]
Model = Annotated[str | None, typer.Option("--model", help="Study whose mistakes the condition asks for.")]
Show = Annotated[str | None, typer.Option("--show", help="Further columns of the preview, with commas.")]
Replay = Annotated[
    str | None,
    typer.Option("--replay", help="Ask an earlier question again: a file of --save, or a version that was matched."),
]
Save = Annotated[Path | None, typer.Option("--save", help="Write the selection to this file (JSON), for --replay.")]
Keep = Annotated[str | None, typer.Option("--name", help="Keep the rows as a version of this dataset.")]
Out = Annotated[
    Path | None, typer.Option("--out", "-o", help="Write the rows to this Parquet file, without personal data.")
]
WithPii = Annotated[bool, typer.Option("--with-pii", help="With --out: columns of personal data, too.")]


def register(group: typer.Typer) -> None:
    """Add the commands to the group."""
    group.command("match", epilog='Example: tidemill data match people --where "age < 30" --size 500 --balance label')(
        match
    )
    group.command(
        "compare", epilog="Example: tidemill data compare visits --treated \"campaign = 'yes'\" --on age,region"
    )(compare)


def match(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A dataset version, or a feature group.")],
    where: Annotated[str | None, typer.Option("--where", help="A condition as in SQL; without it every row.")] = None,
    as_of: AsOf = None,
    size: Size = None,
    balance: Balance = None,
    stratify: Stratify = None,
    similar_to: SimilarTo = None,
    over: Over = None,
    metric: Metric = "l2",
    model: Model = None,
    show: Show = None,
    seed: words.Seed = 0,
    replay: Replay = None,
    save: Save = None,
    name: Keep = None,
    out: Out = None,
    with_pii: WithPii = False,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Choose a sample by conditions: how many rows there are, how they are distributed, and the sample itself.

    Beside its columns a condition can ask for _dataset, _version, _operation (where a row first was brought in),
    _annotator, _labelled (who labelled it, and when), _distance (with --similar-to), and _predicted, _wrong,
    _confidence, _loss (with --model, or for rows that were captured in service).
    """
    with for_people(as_json):
        from tidemill.sdk import data as sdk

        facts = sdk.match(
            source, where, as_of=as_of, size=size, balance=balance, stratify=stratify or (), similar_to=similar_to,
            over=over or (), metric=metric, model=model, show=show or (), seed=seed, replay=replay, save=save,
            name=name, out=out, with_pii=with_pii, workspace=workspace, actor=actor,
        )  # fmt: skip
        tell_match(facts, name, as_json)


def compare(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="A dataset version, or a feature group.")],
    treated: Annotated[str, typer.Option("--treated", help="A condition: who was treated.")],
    on: Annotated[str, typer.Option("--on", help="Columns in which the groups shall be alike, with commas.")],
    where: Annotated[str | None, typer.Option("--where", help="A condition for both groups.")] = None,
    exact: Annotated[
        str | None, typer.Option("--exact", help="Columns in which partners agree wholly, with commas.")
    ] = None,
    method: Annotated[
        str, typer.Option("--method", help="propensity (alike in the odds of being treated) or nearest.")
    ] = "propensity",
    caliper: Annotated[
        float | None, typer.Option("--caliper", help="Partners further away are none, in standard deviations.")
    ] = None,
    ratio: Annotated[int, typer.Option("--ratio", help="Partners of each who was treated.")] = 1,
    replace: Annotated[bool, typer.Option("--replace", help="A row may be the partner of several.")] = False,
    outcome: Annotated[
        str | None, typer.Option("--outcome", help="Column whose difference between the groups is told.")
    ] = None,
    plot: Annotated[Path | None, typer.Option("--plot", help="Draw the balance: .svg or .png.")] = None,
    seed: words.Seed = 0,
    name: Keep = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Find comparable groups: partners who are alike but were not treated, and how alike they are."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        facts = sdk.compare(
            source, treated, on, where=where, exact=exact or (), method=method, caliper=caliper, ratio=ratio,
            replace=replace, seed=seed, outcome=outcome, plot=plot, name=name, workspace=workspace, actor=actor,
        )  # fmt: skip
        if as_json:
            show.emit_json(facts)
            return
        print(
            f"{facts['pairs']:,} pairs of {facts['treated']:,} treated and {facts['controls']:,} others; "
            f"{facts['without_partner']:,} found no partner."
        )
        show.table([_balance(b) for b in facts["balance"]], title="Standardised mean differences (alike below 0.1)")
        if outcome is not None:
            effect = facts["effect"]
            print(f"Difference in {outcome}: {effect['mean']:.4g} ± {effect['error']:.2g} (one standard error)")
        if name is not None:
            print(f"{name} {facts['version'][:12]}: both groups")
        if plot is not None:
            print(f"Picture: {plot}")


def tell_match(facts: Mapping[str, Any], name: str | None, as_json: bool) -> None:
    """Show a sample; `tidemill features match` does, too."""
    from tidemill.cli import show

    if as_json:
        show.emit_json(facts)
        return
    print(f"{facts['matched']:,} of {facts['total']:,} rows match, {facts['size']:,} are taken.")
    for shape in facts["preview"]:
        parts = zip(shape["labels"], shape["source"], shape["matched"], shape["chosen"], strict=True)
        rows = [{"value": v, "all": f"{a:.1%}", "matching": f"{m:.1%}", "taken": f"{c:.1%}"} for v, a, m, c in parts]
        show.table(rows, title=shape["column"])
    if name is not None:
        print(f"{name} {facts['version'][:12]}: {facts['size']:,} rows")
    if "out" in facts:
        without = f", without {', '.join(facts['without'])}" if facts["without"] else ""
        print(f"Written to {facts['out']}{without}")
    if "save" in facts:
        print(f"Selection: {facts['save']}")


def _balance(line: Mapping[str, Any]) -> dict[str, Any]:
    after = line["difference_after"]
    told = {"column": line["column"], "before": _number(line["difference_before"]), "after": _number(after)}
    return {**told, "alike": after is not None and abs(after) < 0.1}


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}"
