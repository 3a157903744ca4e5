"""Versions made from versions: merge, sample, filter, relabel, split, dedupe."""

from typing import Annotated

import typer

from tidemill.cli import options
from tidemill.cli.commands.data import words
from tidemill.cli.errors import for_people

Shares = Annotated[list[str] | None, typer.Option("--share", help="NAME=SHARE; once for each.")]
By = Annotated[str | None, typer.Option("--by", help="Columns, with commas.")]


def register(group: typer.Typer) -> None:
    """Add the commands to the group."""
    group.command("merge", epilog="Example: tidemill data merge cases corrections --identity case --rule newest")(merge)
    group.command("sample", epilog="Example: tidemill data sample income --way balanced --size 1000 --name small")(
        sample
    )
    group.command("filter", epilog="Example: tidemill data filter income --where \"age > 30 and city = 'Ulm'\"")(
        filter_
    )
    group.command("relabel", epilog="Example: tidemill data relabel income fixes.csv --key person --annotator mia")(
        relabel
    )
    group.command("split", epilog="Example: tidemill data split income --share train=0.8 --share test=0.2")(split)
    group.command("dedupe", epilog="Example: tidemill data dedupe income --near --tolerance 0.01")(dedupe)


def merge(
    datasets: Annotated[list[str], typer.Argument(metavar="DATASET…", help="Two versions or more.")],
    identity: Annotated[
        str, typer.Option("--identity", help="none, content, or key columns with commas: when two rows are the same.")
    ] = "none",
    rule: Annotated[
        str, typer.Option("--rule", help="Where labels differ: newest, trusted, majority, or both for review.")
    ] = "newest",
    trusted: Annotated[
        str | None, typer.Option("--trusted", help="Annotators with commas, most trusted first.")
    ] = None,
    label: words.Label = None,
    missing: Annotated[bool, typer.Option("--missing", help="Keep columns that only some versions have.")] = False,
    name: words.Name = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Put versions together, A ∪ B = C; nothing is copied, and the order makes no difference."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        told = sdk.merge(
            datasets, identity=identity, rule=rule, trusted=trusted or (), label=label, missing=missing, name=name,
            workspace=workspace, actor=actor,
        )  # fmt: skip
        if as_json:
            show.emit_json(told)
        else:
            more = f", labels differed in {told['conflicts']:,}" if told["conflicts"] else ""
            print(words.tell(told, more))
            if told["review"]:
                print(f"To review: artifact {told['review']}")


def sample(
    dataset: words.Dataset,
    way: Annotated[
        str,
        typer.Option("--way", help="random, stratified, balanced, window, entity, nearest or weighted."),
    ] = "random",
    size: Annotated[
        float | None, typer.Option("--size", help="Rows, or a share below 1; per entity with entity.")
    ] = None,
    by: By = None,
    since: Annotated[str | None, typer.Option("--since", help="Beginning of a window of time.")] = None,
    until: Annotated[str | None, typer.Option("--until", help="Its end, excluded.")] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="A version to be near to, or distributed like.")
    ] = None,
    share: Shares = None,
    seed: words.Seed = 0,
    name: words.NewName = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Keep a sample of a version; nothing is copied."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        told = sdk.sample(
            dataset, way=way, size=size, by=by, seed=seed, since=since, until=until, target=target,
            shares=words.shares(share) if share else None, name=name, workspace=workspace, actor=actor,
        )  # fmt: skip
        if as_json:
            show.emit_json(told)
        else:
            print(words.tell(told))


def filter_(
    dataset: words.Dataset,
    where: Annotated[str, typer.Option("--where", help="A condition as in SQL.")],
    name: words.NewName = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Keep the rows on which a condition is true; nothing is copied."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        told = sdk.filter_(dataset, where, name=name, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(told)
        else:
            print(words.tell(told))


def relabel(
    dataset: words.Dataset,
    labels: Annotated[str, typer.Argument(metavar="LABELS", help="A file with key columns and the label column.")],
    key: Annotated[str, typer.Option("--key", help="Key columns, with commas.")],
    label: words.Label = None,
    annotator: Annotated[
        str | None, typer.Option("--annotator", help="Who gave the labels; default the actor.")
    ] = None,
    name: words.Name = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Lay other labels over rows; no row is written again."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        told = sdk.relabel(
            dataset, labels, key=key, label=label, annotator=annotator, name=name, workspace=workspace, actor=actor
        )
        if as_json:
            show.emit_json(told)
        else:
            print(words.tell(told))


def split(
    dataset: words.Dataset,
    share: Annotated[list[str], typer.Option("--share", help="NAME=SHARE; once for each part.")],
    stratify: Annotated[
        str | None, typer.Option("--stratify", help="Column with the same shares in all parts.")
    ] = None,
    group: Annotated[str | None, typer.Option("--group", help="Column whose equal values stay together.")] = None,
    order: Annotated[str | None, typer.Option("--order", help="Column by which the parts follow each other.")] = None,
    seed: words.Seed = 0,
    name: words.Name = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Cut a version into datasets NAME.PART, no row in two of them."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        told = sdk.split(
            dataset, words.shares(share), stratify=stratify, group=group, order=order, seed=seed, name=name,
            workspace=workspace, actor=actor,
        )  # fmt: skip
        if as_json:
            show.emit_json(told)
        else:
            print("\n".join(words.tell(v) for v in told.values()))


def dedupe(
    dataset: words.Dataset,
    by: By = None,
    near: Annotated[bool, typer.Option("--near", help="Nearly equal rows, too: numbers, texts, images.")] = False,
    tolerance: Annotated[float, typer.Option("--tolerance", help="In standard deviations, for numbers.")] = 0.01,
    similarity: Annotated[float, typer.Option("--similarity", help="0 to 1, for texts.")] = 0.8,
    name: words.Name = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Keep the first of rows that are the same."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        told = sdk.dedupe(
            dataset, by=by or (), near=near, tolerance=tolerance, similarity=similarity, name=name,
            workspace=workspace, actor=actor,
        )  # fmt: skip
        if as_json:
            show.emit_json(told)
        else:
            print(words.tell(told, f", {told['dropped']:,} dropped"))
