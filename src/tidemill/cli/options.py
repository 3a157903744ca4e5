"""Options that several commands share, so that one noun has one spelling and one help text."""

from pathlib import Path
from typing import Annotated

import typer

Workspace = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        help="Where state lives. Default: TIDEMILL_WORKSPACE, else ./.tidemill.",
        rich_help_panel="General",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON for programs instead of text for people.", rich_help_panel="General")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.", rich_help_panel="General")]
Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle folder, as `tidemill fit --out` leaves it.")]
Study = Annotated[str, typer.Argument(metavar="STUDY", help="Name of a study; see `tidemill studies`.")]
Objective = Annotated[
    str | None,
    typer.Option(
        "--objective", help="For example 'maximize roc_auc; params <= 2e5; latency_ms <= 3; recall[fraud] >= 0.9'."
    ),
]
Decode = Annotated[str, typer.Option("--decode", help="How a bundle reads lines of text: greedy, beam, or beam:WIDTH.")]
Images = Annotated[
    Path | None, typer.Option("--images", help="Folder or zip archive with the image files that a table names.")
]
Engine = Annotated[
    str, typer.Option("--engine", help="Where it runs: process, inprocess, or ray for a cluster (extra ray).")
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        help="With --engine ray: the cluster's head, or auto. Default: RAY_ADDRESS, else a Ray of this machine.",
    ),
]
