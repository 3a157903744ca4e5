"""Who answers for a dataset, and what must go: tag, untag, say, audit, drop, expire, forget, gc."""

from typing import Annotated

import typer

from tidemill.cli import options
from tidemill.cli.commands.data import words
from tidemill.cli.errors import for_people

Named = Annotated[str, typer.Argument(metavar="DATASET", help="Name of a dataset.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


def register(group: typer.Typer) -> None:
    """Add the commands to the group."""
    group.command("tag", epilog="Example: tidemill data tag income@1a2b gold")(tag)
    group.command("untag", epilog="Example: tidemill data untag income gold")(untag)
    group.command("say", epilog="Example: tidemill data say income --owner mia --pii name=person --role ben=reader")(
        say
    )
    group.command("audit", epilog="Example: tidemill data audit income")(audit)
    group.command("drop", epilog="Example: tidemill data drop income@1a2b")(drop)
    group.command("expire", epilog="Example: tidemill data expire")(expire)
    group.command("forget", epilog="Example: tidemill data forget --where \"person = 'p17'\" --dry-run")(forget)
    group.command("gc", epilog="Example: tidemill data gc --dry-run")(gc)


def tag(
    dataset: words.Dataset,
    name: Annotated[str, typer.Argument(metavar="TAG", help="A word.")],
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Give a version a second name: DATASET@TAG then means it everywhere."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        told = sdk.tag(dataset, name, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(told)
        else:
            print(f"{told['dataset']}@{name} is {told['hash'][:12]}.")


def untag(
    dataset: Named,
    name: Annotated[str, typer.Argument(metavar="TAG", help="The tag.")],
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Take a tag away."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        sdk.untag(dataset, name, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json({"dataset": dataset, "untagged": name})
        else:
            print(f"{dataset}@{name} is no more.")


def say(
    dataset: Named,
    owner: Annotated[str | None, typer.Option("--owner", help="Who answers for it.")] = None,
    description: Annotated[str | None, typer.Option("--description", help="What it is.")] = None,
    pii: Annotated[
        list[str] | None, typer.Option("--pii", help="COLUMN=KIND of personal data; COLUMN= takes the mark away.")
    ] = None,
    role: Annotated[
        list[str] | None,
        typer.Option("--role", help="ACTOR=reader|writer|owner, * for the rest; ACTOR= takes it away."),
    ] = None,
    retention: Annotated[float | None, typer.Option("--retention", help="Days that versions are kept.")] = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Say of a dataset who owns it, what it is, what is personal in it, and who may do what with it."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        told = sdk.say(
            dataset,
            owner=owner,
            description=description,
            pii={k: v or None for k, v in words.pairs(pii, "--pii").items()} if pii else None,
            roles={k: v or None for k, v in words.pairs(role, "--role").items()} if role else None,
            retention_days=retention,
            workspace=workspace,
            actor=actor,
        )
        if as_json:
            show.emit_json(told)
        else:
            show.table([{"what": k, "value": str(v)} for k, v in told.items()])


def audit(
    dataset: Named,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Show who changed what about a dataset."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        rows = sdk.audit_log(dataset, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(rows)
        elif rows:
            show.table([{**r, "facts": ", ".join(f"{k}: {v}" for k, v in r["facts"].items())} for r in rows])
        else:
            print("Nothing is written down about it.")


def drop(
    dataset: words.Dataset,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """List a version no longer; its files go with the next `gc`, unless something refers to it."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        told = sdk.drop(dataset, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(told)
        else:
            print(f"Dropped {told['dataset']} {told['hash'][:12]}.")


def expire(
    dataset: Annotated[str | None, typer.Argument(metavar="[DATASET]", help="Only this one.")] = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Drop the versions that are older than their dataset's retention."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        gone = sdk.expire(dataset, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(gone)
        else:
            print("\n".join(f"Dropped {v['dataset']} {v['hash'][:12]}." for v in gone) or "Nothing is too old.")


def forget(
    where: Annotated[str, typer.Option("--where", help="A condition as in SQL, for example \"person = 'p17'\".")],
    dry_run: DryRun = False,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Erase rows from all versions of all datasets, and say which models saw them."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        told = sdk.forget(where, dry_run=dry_run, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(told)
            return
        done = "would be erased" if dry_run else "were erased"
        files = f"{told['fragments']:,} fragments"
        print(f"{told['rows']:,} stored rows in {files} {done}, with {told['blobs']:,} media files.")
        for name, count in told["versions"].items():
            print(f"  {name}: {count:,}")
        print(f"Studies that saw them: {', '.join(told['studies']) or 'none'}")
        print(f"Bundles that saw them: {', '.join(told['bundles']) or 'none'}")


def gc(
    dataset: Annotated[
        str | None, typer.Argument(metavar="[DATASET]", help="Only this one. You must own each dataset whose files go.")
    ] = None,
    dry_run: DryRun = False,
    grace: Annotated[
        float | None, typer.Option("--grace", help="Hours that a fragment without a version may grow old; default 24.")
    ] = None,
    workspace: options.Workspace = None,
    actor: words.Actor = None,
    as_json: options.Json = False,
) -> None:
    """Remove the files of dropped versions that nothing refers to, and what crashed writers left."""
    with for_people(as_json):
        from tidemill.cli import show
        from tidemill.sdk import data as sdk

        age = None if grace is None else grace * 3600
        told = sdk.gc(dataset, dry_run=dry_run, grace_s=age, workspace=workspace, actor=actor)
        if as_json:
            show.emit_json(told)
            return
        print(
            f"{told['files']:,} files {'would be' if dry_run else 'were'} removed, {told['orphans']:,} of them orphans."
        )
        if told["kept"]:
            print(f"Dropped, but still referred to: {', '.join(told['kept'])}")
