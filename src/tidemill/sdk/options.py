"""What a person may say about a fit."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tidemill.core.budget import Budget
from tidemill.core.errors import OptionError, nearest_hint
from tidemill.core.schema import SemanticType
from tidemill.core.transcripts import GREEDY

DEFAULT_TIME = "60s"
ENGINES = ("process", "inprocess", "ray")


@dataclass(frozen=True)
class FitOptions:
    """Options of a fit; every one has a default that is right for a first look.

    Parameters
    ----------
    kind : str or None
        ``"binary"``, ``"multiclass"`` or ``"regression"``; None looks at the target. ``"image-"`` or ``"text-"`` before
        ``classification``, ``regression`` or ``multilabel`` says what the rows are, too; ``"table-"`` before the first
        two, that they are no texts and no images.
    positive : str or None
        Positive class of a binary task.
    objective : str or None
        Text of the objective; None takes the task's default.
    time : str, float or None
        Wall-clock limit of everything, reading and export included. Without ``time`` and ``trials`` 60 s.
    trials : int or None
        Limit of finished trials; 0 with a study that is resumed searches nothing.
    memory : str, int or None
        Memory limit of all running trials together.
    cpus : int or None
        Cores; None for all.
    device : str
        What nets are trained on: ``"auto"``, a GPU if there is one, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    plan : path or None
        JSON of a plan (`tidemill plan --out`) or of a placement, for every training of a net; None plans each.
    test : path, table or None
        Locked test rows.
    test_size : float or None
        Share of rows to lock away where there is no ``test``; None takes 15 %, 0 takes none.
    group, time_column : str or None
        Columns that the folds and the test slice respect.
    types : mapping
        Semantic types by column name that overrule what is seen.
    families : tuple of str or None
        Only these families.
    schedule : str
        ``"full"`` trains every config on all rows; ``"rows"`` on a part first, and on all where it keeps up;
        ``"rungs"``, for nets, for a few epochs first, and for more where it keeps up; on Ray all nodes then have to
        see the workspace's folder.
    epochs : int or None
        With ``"rungs"``: epochs of a whole training.
    brackets : int or None
        With ``"rungs"``: on how many rungs, from the lowest, trials begin; None for the lowest alone. More of them
        hedge against first epochs that say little, and cost more.
    database, sheet : str or None
        URL for an SQL query; sheet of an Excel file.
    name : str or None
        Name of the study; None makes one from the data's name.
    seed : int
        Seed.
    started : float or None
        `time.monotonic` value at which the clock of ``time`` began; None is now.
    keep_all_features : bool
        Keep columns that look like row numbers or never change, for callers that chose their columns themselves.
    image_size : int or None
        Images are resized to squares of so many pixels a side; None looks at them.
    images : path or None
        Folder or archive in which the images of a table lie; None looks beside the table.
    weights : tuple of str
        Folders or files with trained weights that may be begun from, or that read columns of a table; studies, and
        their bundles, stand for their best nets.
    in_process : bool
        Train in this process, one trial after the other: quicker to start, but no limit of time or memory can end a
        trial.
    engine : str
        Where trials run: ``"process"``, in processes of this machine; ``"inprocess"``, as ``in_process``; ``"ray"``, on
        the nodes of a cluster (extra ``ray``).
    ray_address : str or None
        With ``"ray"``: ``host:port`` of the cluster's head, or ``"auto"``; None takes ``RAY_ADDRESS``, else a Ray of
        this machine.
    separator : str or None
        What stands between the labels of a cell where a row has several, or ``"json"``; None looks at the cells.
    ignore_case : bool
        Lines of text are read in lower case, whatever their letters look like.
    decode : str
        How a bundle reads lines of text: ``"greedy"``, ``"beam"`` or ``"beam:WIDTH"``; see `Choice.export`.
    within : path or None
        Folder that names of images in a table must not lead out of; None lets them name any file.
    """

    kind: str | None = None
    positive: str | None = None
    objective: str | None = None
    time: str | float | None = None
    trials: int | None = None
    memory: str | int | None = None
    cpus: int | None = None
    device: str = "auto"
    plan: Any = None
    test: object = None
    test_size: float | None = None
    group: str | None = None
    time_column: str | None = None
    types: Mapping[str, SemanticType] = field(default_factory=dict)
    families: tuple[str, ...] | None = None
    schedule: str = "full"
    epochs: int | None = None
    brackets: int | None = None
    database: str | None = None
    sheet: str | None = None
    name: str | None = None
    seed: int = 0
    started: float | None = None
    keep_all_features: bool = False
    in_process: bool = False
    image_size: int | None = None
    images: Any = None
    weights: tuple[str, ...] = ()
    engine: str = "process"
    ray_address: str | None = None
    separator: str | None = None
    ignore_case: bool = False
    decode: str = GREEDY
    within: str | None = None

    def __post_init__(self) -> None:
        if self.test_size is not None and not 0 <= self.test_size <= 0.9:
            raise OptionError(
                f"The test share must lie between 0 and 0.9, but got {self.test_size}.", where="--test-size"
            )
        if self.image_size is not None and not 4 <= self.image_size <= 1024:
            raise OptionError(
                f"Images are resized to 4 to 1024 pixels a side, but got {self.image_size}.", where="--image-size"
            )
        if self.schedule not in ("full", "rows", "rungs"):
            raise OptionError(
                f"There is no schedule {self.schedule!r}; choose full, rows or rungs.", where="--schedule"
            )
        if self.epochs is not None and (self.schedule != "rungs" or self.epochs < 1):
            raise OptionError("Epochs are for --schedule rungs, and at least 1.", where="--epochs")
        if self.brackets is not None and (self.schedule != "rungs" or self.brackets < 1):
            raise OptionError("Brackets are for --schedule rungs, and at least 1.", where="--brackets")
        if self.test is not None and self.test_size:
            raise OptionError("A test file and a test share exclude each other.", where="--test, --test-size")
        self._check_engine()

    def _check_engine(self) -> None:
        if self.engine not in ENGINES:
            raise OptionError(
                f"There is no engine {self.engine!r}.", where="--engine", hint=nearest_hint(self.engine, ENGINES)
            )
        if self.in_process and self.engine == "ray":
            raise OptionError("Trials run in this process or on Ray, not both.", where="--engine")
        if self.ray_address is not None and self.engine != "ray":
            raise OptionError("An address is for --engine ray.", where="--ray-address")
        if self.runs_here and (self.time is not None or self.memory is not None):
            raise OptionError("A trial in this process can't be ended.", hint="Leave out `time` and `memory`.")

    @property
    def runs_here(self) -> bool:
        """Whether trials run in this process."""
        return self.in_process or self.engine == "inprocess"

    def budget(self) -> Budget:
        """The limits, with 60 s where neither time nor trials are limited."""
        limited = self.time is not None or self.trials is not None
        return Budget.parse(
            time=self.time if limited else DEFAULT_TIME, trials=self.trials, memory=self.memory, cpus=self.cpus
        )

    def limits(self) -> dict[str, Any]:
        """The limits as they were said, JSON-able."""
        return {"time": self.time, "trials": self.trials, "memory": self.memory, "cpus": self.cpus}

    def apart(self) -> dict[str, Any]:
        """What stands between labels, where a person said it; JSON-able."""
        return {} if self.separator is None else {"separator": self.separator}

    def clock(self) -> float:
        """`time.monotonic` value at which the fit began."""
        return time.monotonic() if self.started is None else self.started


def parse_types(words: Iterable[str]) -> dict[str, SemanticType]:
    """Read ``column=type`` words of the command line.

    Examples
    --------
    >>> parse_types(["zip=category"])
    {'zip': <SemanticType.CATEGORY: 'category'>}
    """
    known = [t.value for t in SemanticType if t.is_feature or t in (SemanticType.IGNORED, SemanticType.IDENTIFIER)]
    known.remove(SemanticType.IMAGE.value)  # pixels are no column of a table
    types: dict[str, SemanticType] = {}
    for word in words:
        column, sign, name = word.rpartition("=")
        if not sign or not column:
            raise OptionError(f"{word!r} is not of the form column=type.", where="--type")
        if name not in known:
            raise OptionError(f"There is no type {name!r}.", where="--type", hint=nearest_hint(name, known))
        types[column] = SemanticType(name)
    return types
