"""The program ``tidemill``: the list of its commands, and nothing else.

The commands' own modules load what they need when they run, so that ``tidemill --help`` stays quick.
"""

import sys
from typing import Annotated

import typer

from tidemill.cli.commands import bundles, demo, deploy, fit, plan, platform, serve, studies, watch, worker
from tidemill.cli.errors import Exit, unexpected
from tidemill.cli.later import add_group

app = typer.Typer(
    name="tidemill",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A table in, a verified model file out: search, export, check and use models.",
    epilog="Start with: tidemill demo",
)


def _version(wanted: bool) -> None:
    if wanted:
        from tidemill import __version__

        print(f"tidemill {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None: ...


demo.register(app)
fit.register(app)
studies.register(app)
plan.register(app)
bundles.register(app)
deploy.register(app)
platform.register(app)
serve.register(app)
watch.register(app)
worker.register(app)
_HERE = "tidemill.cli.commands"
add_group(app, "pool", f"{_HERE}.pool", "The families that a search can choose from.")
add_group(app, "data", f"{_HERE}.data", "Datasets in versions: kept, combined, compared, governed.")
add_group(app, "features", f"{_HERE}.features", "Feature groups: values by entity, as of a time or for now.")
add_group(app, "keys", f"{_HERE}.keys", "API keys: who may do what, how often.")
add_group(app, "jobs", f"{_HERE}.jobs", "Jobs: queue long work, and see what comes of it.")


def main(arguments: list[str] | None = None) -> None:
    """Run the program and end the process with its exit code."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run the program and return its exit code: 0 done, 1 failed, 2 wrong usage."""
    try:
        result = app(args=arguments, prog_name="tidemill", standalone_mode=True)
    except Exit as end:
        return end.code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except Exception as error:  # noqa: BLE001  a door's edge: whatever comes here is a bug of ours, and says so
        return unexpected(error)
    return result if isinstance(result, int) else 0


if __name__ == "__main__":
    main()
