"""``tidemill features``: feature groups, their rows, and what is asked of them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from tidemill.cli import options
from tidemill.cli.commands.data import choose, words
from tidemill.cli.errors import FAILED, Exit, for_people

Group = Annotated[str, typer.Argument(metavar="GROUP", help="Name of a feature group; see `tidemill features list`.")]
Columns = Annotated[str | None, typer.Option("--columns", help="Names of features, separated by commas; default all.")]
AsOf = Annotated[str | None, typer.Option("--as-of", help="A time like 2026-11-01T00:00:00Z: what was known then.")]
AssumeUtc = Annotated[bool, typer.Option("--assume-utc", help="Read times without a zone as UTC.")]


def group() -> typer.Typer:
    """Give the commands."""
    group = typer.Typer()
    group.command(
        "register",
        epilog="Example: tidemill features register user --from users.parquet --entity user_id --event-time at",
    )(register_)
    group.command("push", epilog="Example: tidemill features push user users.parquet")(push)
    group.command("list", epilog="Example: tidemill features list")(list_)
    group.command("show", epilog="Example: tidemill features show user")(show_)
    group.command("get", epilog="Example: tidemill features get user 7 8 --columns age,city")(get)
    group.command(
        "historical",
        epilog="Example: tidemill features historical labels.csv user order:amount --time at --out train.parquet",
    )(historical)
    group.command("match", epilog='Example: tidemill features match "age between 20 and 30" --from user --size 1000')(
        match
    )
    group.command("materialize", epilog="Example: tidemill features materialize user")(materialize)
    group.command("verify", epilog="Example: tidemill features verify user")(verify)
    group.command("forget", epilog="Example: tidemill features forget user 7 --dry-run")(forget)
    group.command("say", epilog="Example: tidemill features say user --owner mia --role ben=reader")(say)
    group.command("audit", epilog="Example: tidemill features audit user")(audit)
    return group


def register_(
    definition: Annotated[
        str, typer.Argument(metavar="DEFINITION", help="A YAML or JSON file; with --from the name of the group.")
    ],
    source: Annotated[
        str | None, typer.Option("--from", help="Take the features from the columns of this table.")
    ] = None,
    entity: Annotated[str | None, typer.Option("--entity", help="Key columns, separated by commas.")] = None,
    event_time: Annotated[str, typer.Option("--event-time", help="Column: when values became true.")] = "event_time",
    created_time: Annotated[
        str | None, typer.Option("--created-time", help="Column: when values became known; default the push.")
    ] = None,
    ttl: Annotated[str | None, typer.Option("--ttl", help="Older values are missing; like 30d, 12h, 90s.")] = None,
    freshness: Annotated[str | None, typer.Option("--freshness", help="Older values are said to be stale.")] = None,
    packing: Annotated[str, typer.Option("--packing", help="float32, float16 or int8.")] = "float32",
    owner: Annotated[str, typer.Option("--owner", help="Who answers for it.")] = "",
    grow: Annotated[bool, typer.Option("--grow", help="Add the features that the group doesn't have yet.")] = False,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Add a feature group; the same definition again changes nothing."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.core.errors import OptionError
        from tidemill.sdk import features

        what: Any = definition
        if source is not None:
            if not entity:
                raise OptionError("Which columns are the key?", hint="Say --entity user_id.")
            what = features.infer_group(
                definition,
                source,
                entity=_names(entity) or [],
                event_time=event_time,
                created_time=created_time,
                ttl=ttl,
                freshness=freshness,
                packing=packing,
                owner=owner,
            )
        group = features.register(what, grow=grow, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(group.to_json())
        else:
            print(f"{group.name}: {len(group.features):,} features by {', '.join(group.entity_names)}")


def push(
    group: Group,
    data: Annotated[str, typer.Argument(metavar="DATA", help="Parquet, Arrow, CSV, JSON lines or Excel.")],
    changes: Annotated[
        bool, typer.Option("--changes", help="The rows name only what changed; all else of an entity stays.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="To the history alone; materialize later.")] = False,
    partial: Annotated[bool, typer.Option("--partial", help="Features may be absent; they are missing then.")] = False,
    correct: Annotated[
        bool, typer.Option("--correct", help="Other values for a known entity and time are corrections.")
    ] = False,
    assume_utc: AssumeUtc = False,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Add rows to a group's history, and put the newest of each entity online."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import features

        done = features.push(
            group,
            data,
            changes=changes,
            offline=offline,
            partial=partial,
            correct=correct,
            assume_utc=assume_utc,
            workspace=workspace,
            actor=actor,
        )
        if as_json:
            show.emit_json(done)
            return
        print(f"{group}: {done['rows']:,} rows came, {done['added']:,} are new.")
        if "online" in done:
            print(f"Online: {done['online']:,} are the newest of their entity, {done['older']:,} are older.")
            if done["ahead"]:
                print(f"{done['ahead']:,} rows lie in the future: `tidemill features materialize {group}` brings them.")


def list_(workspace: options.Workspace = None, actor: words.Actor = None, as_json: options.Json = False) -> None:
    """List the feature groups of the workspace that may be read."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import features

        rows = features.groups(workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(rows)
        elif rows:
            show.table(rows, title="Feature groups")
        else:
            print("No feature groups yet. Add one with: tidemill features register")


def show_(
    group: Group, workspace: options.Workspace = None, actor: words.Actor = None, as_json: options.Json = False
) -> None:
    """Describe a feature group: features, rows, bytes, rounding."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import features

        facts = features.describe(group, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(facts)
            return
        rows = [{**f, "rounding": facts["rounding"].get(f["name"])} for f in facts["features"]]
        show.table(
            rows,
            columns=["name", "dtype", "default", "rounding", "description"],
            title=f"{group}: {facts['entities']:,} entities, {facts['rows']:,} rows, "
            f"{show.size(facts['row_bytes'])} for each packed row ({facts['packing']})",
        )


def get(
    group: Group,
    keys: Annotated[
        list[str], typer.Argument(metavar="KEY…", help="Entities: 7 8 9, or shop=1,user=a for keys of several columns.")
    ],
    columns: Columns = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Show the newest values of some entities."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import features

        rows = features.get(group, keys, _names(columns), workspace=workspace, actor=actor).facts(keys)
        if as_json:
            show.emit_json(rows)
            return
        wide = [{k: v for k, v in row.items() if k != "values"} | row["values"] for row in rows]
        names = list(wide[0])[:20]
        show.table(wide, columns=names, title=f"{group}: newest values")
        if len(names) < len(wide[0]):
            print(f"… and {len(wide[0]) - len(names):,} more features; choose some with --columns, or say --json.")


def verify(
    group: Group, workspace: options.Workspace = None, actor: words.Actor = None, as_json: options.Json = False
) -> None:
    """Check every byte that is kept of a feature group's history."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import features

        found = features.verify(group, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(found)
        else:
            print("\n".join(found["problems"]) or f"{group} is whole: {found['rows']:,} rows.")
        if found["problems"]:
            raise Exit(FAILED)


def forget(
    group: Group,
    keys: Annotated[
        list[str], typer.Argument(metavar="KEY…", help="Entities: 7 8 9, or shop=1,user=a for keys of several columns.")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Erase entities from a group: history, kept states and newest values; and say which datasets hold copies."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import features

        told = features.forget(group, keys, dry_run=dry_run, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(told)
            return
        would = "would be" if dry_run else "were"
        print(f"{told['rows']:,} rows and the newest values of {told['online']:,} entities {would} erased.")
        if told["versions"]:
            print(f"Copies of such rows stand in {', '.join(told['versions'])}; see: tidemill data forget --where …")


def say(
    group: Group,
    owner: Annotated[str | None, typer.Option("--owner", help="Who answers for it.")] = None,
    description: Annotated[str | None, typer.Option("--description", help="What it is.")] = None,
    ttl: Annotated[str | None, typer.Option("--ttl", help="Older values are missing; like 30d, 12h, 90s.")] = None,
    freshness: Annotated[str | None, typer.Option("--freshness", help="Older values are said to be stale.")] = None,
    role: Annotated[
        list[str] | None,
        typer.Option("--role", help="ACTOR=reader|writer|owner, * for the rest; ACTOR= takes it away."),
    ] = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Say of a feature group who owns it, what it is, how long values live, and who may do what with it."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import features

        told = features.say(
            group,
            owner=owner,
            description=description,
            ttl=ttl,
            freshness=freshness,
            roles={k: v or None for k, v in words.pairs(role, "--role").items()} if role else None,
            workspace=workspace,
            actor=actor,
        )
        if as_json:
            show.emit_json(told)
            return
        said = ("owner", "description", "ttl_s", "freshness_s", "roles")
        show.table([{"what": name, "value": str(told[name])} for name in said])


def audit(
    group: Group, workspace: options.Workspace = None, actor: words.Actor = None, as_json: options.Json = False
) -> None:
    """Show who changed what about a feature group."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import features

        rows = features.audit_log(group, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(rows)
        elif rows:
            show.table([{**r, "facts": ", ".join(f"{k}: {v}" for k, v in r["facts"].items())} for r in rows])
        else:
            print("Nothing is written down about it.")


def historical(
    spine: Annotated[str, typer.Argument(metavar="SPINE", help="Table with entity keys, a time, and labels.")],
    features: Annotated[
        list[str], typer.Argument(metavar="FEATURES…", help="Groups, or single ones as group:feature.")
    ],
    time: Annotated[str, typer.Option("--time", help="Column of the spine: the time that each row asks for.")],
    out: Annotated[Path | None, typer.Option("--out", help="Write the result to this Parquet file.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Keep the result as a version of this dataset.")] = None,
    target: Annotated[str | None, typer.Option("--target", "-t", help="With --name: the column to predict.")] = None,
    as_of: AsOf = None,
    prefix: Annotated[bool, typer.Option("--prefix", help="Name columns group__feature.")] = False,
    assume_utc: AssumeUtc = False,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Join features to the rows of a table, each as it was known at the row's time."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.core.errors import OptionError
        from tidemill.sdk.features import historical as run

        if out is None and name is None:
            raise OptionError("Where should the result go?", hint="Say --out FILE.parquet, --name DATASET, or both.")
        with run(
            spine, features, label_time=time, as_of=as_of, prefix=prefix, assume_utc=assume_utc, workspace=workspace,
            actor=actor,
        ) as joined:  # fmt: skip
            facts: dict[str, Any] = {"rows": len(joined), "found": joined.found}
            if out is not None:
                joined.write_parquet(out)
                facts["out"] = str(out)
            if name is not None:
                facts["version"] = joined.to_version(name, target=target).hash
        if as_json:
            show.emit_json(facts)
            return
        for group, found in facts["found"].items():
            print(f"{group}: {found:,} of {facts['rows']:,} rows have values")
        if name is not None:
            print(f"{name} {facts['version'][:12]}: {facts['rows']:,} rows")
        if out is not None:
            print(f"Written to {out}")


def match(
    source: Annotated[str, typer.Option("--from", help="A feature group, or a dataset version.")],
    where: Annotated[
        str | None, typer.Argument(metavar="[CONDITION]", help="As in SQL after WHERE; without it every row.")
    ] = None,
    as_of: AsOf = None,
    size: choose.Size = None,
    balance: choose.Balance = None,
    stratify: choose.Stratify = None,
    similar_to: choose.SimilarTo = None,
    over: choose.Over = None,
    metric: choose.Metric = "l2",
    model: choose.Model = None,
    columns: choose.Show = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the random order.")] = 0,
    replay: choose.Replay = None,
    save: choose.Save = None,
    name: choose.Keep = None,
    out: choose.Out = None,
    with_pii: choose.WithPii = False,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Choose a sample by conditions: how many rows there are, how they are distributed, and the sample itself."""
    with for_people(as_json):
        from tidemill.sdk.features import match as run

        facts = run(
            source, where or None, as_of=as_of, size=size, balance=balance, stratify=stratify or (),
            similar_to=similar_to, over=over or (), metric=metric, model=model, show=columns or (), seed=seed,
            replay=replay, save=save, name=name, out=out, with_pii=with_pii, workspace=workspace, actor=actor,
        )  # fmt: skip
        choose.tell_match(facts, name, as_json)


def materialize(
    group: Group, workspace: options.Workspace = None, actor: words.Actor = None, as_json: options.Json = False
) -> None:
    """Put the newest row of every entity of the history online."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import features

        done = features.materialize(group, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(done)
        else:
            print(
                f"{group}: {done['written']:,} of {done['entities']:,} entities written, {done['older']:,} were newer."
            )


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]
