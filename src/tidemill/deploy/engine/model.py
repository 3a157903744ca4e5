"""One model as the engine holds it: what is known of it, who waits for it, and the workers that run it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Any

from tidemill.core.schema import Schema, SemanticType
from tidemill.deploy.engine.curves import Curve
from tidemill.deploy.engine.facts import Facts
from tidemill.deploy.engine.files import FileCodec
from tidemill.deploy.engine.fleet import Worker
from tidemill.deploy.engine.layout import Layout
from tidemill.deploy.engine.limits import MIB, Limits
from tidemill.deploy.engine.query import Outputs, Query
from tidemill.deploy.engine.records import RecordCodec
from tidemill.deploy.engine.refusal import Refusal
from tidemill.deploy.engine.scheduler import Line
from tidemill.deploy.engine.texts import TextCodec
from tidemill.deploy.engine.v2 import Codec

NICE = 15
"""How much lower the priority of bulk workers is."""
_PIXEL_BYTES = 48
"""What a pixel may take on its way: as Pillow unpacks it, as it is stacked, as the graph's first tensors hold it."""
Done = Callable[["Job", "Outputs | None", int, "Refusal | None"], None]


class Job:
    """Rows of one request on their way through a line, a batch and a worker.

    Parameters
    ----------
    query : Query
        The rows.
    arrived, deadline : float
        Seconds on the engine's clock.
    done : callable
        Gets this job, the outputs of its batch, its first row there, and the refusal where there are no outputs.
    """

    # Defaults stand with the class: an object is made for every request, and most of these never change.
    alone: bool = False
    attempts: int = 0
    retries: int = 0
    sent: float = 0.0
    ended: float = 0.0
    """When its answer was written; 0 where the batch does not tell of it."""
    first: int = -1
    """Number of its first row in a request that was divided; −1 for one that was not."""
    request_id: str

    @property
    def traceparent(self) -> str:
        """The caller's span as the header of this name told it; empty where there is none."""
        return ""

    def __init__(self, query: Query, arrived: float, deadline: float, done: Done) -> None:
        self.query = query
        self.rows = query.rows
        self.key = query.shapes
        self.arrived = self.queued = arrived
        self.deadline = deadline
        self.done = done


def _as_sent(schema: Schema) -> Schema:
    """Columns as people send them: an image among others is the Base64 of its file, a text."""
    images = {c.name: SemanticType.TEXT for c in schema.embedded if c.type is SemanticType.IMAGE}
    return schema.with_types(images) if images else schema


class State(str, Enum):
    """Where a model is."""

    NEW = "new"
    CHECKING = "checking"
    READY = "ready"
    FAILED = "failed"
    GONE = "gone"


class Model:
    """A revision that can answer.

    Parameters
    ----------
    endpoint, revision : str
        Whose it is.
    facts : Facts
        The files.
    limits : Limits
        Bounds.
    bulk : bool
        Its class.
    target_ms, idle_s : float
        As the endpoint wants it.
    replicas : (int, int)
        Fewest and most workers.
    provider : str
        ``"cpu"`` or ``"cuda"``.
    """

    def __init__(
        self,
        endpoint: str,
        revision: str,
        facts: Facts,
        limits: Limits,
        *,
        bulk: bool = False,
        target_ms: float = 100.0,
        idle_s: float = 300.0,
        replicas: tuple[int, int] = (0, 1),
        provider: str = "cpu",
    ) -> None:
        self.endpoint = endpoint
        self.revision = revision
        self.head = b"\r\nx-revision: %b\r\ncontent-length: " % revision.encode()
        self.refusal: tuple[float, bytes, bytes] = (0.0, b"", b"")
        """The newest refusal of an overload as bytes, before and behind the request's id, and until when it holds."""
        self.facts = facts
        self.limits = limits
        self.idle_s = idle_s
        self.replicas = replicas
        self.deterministic = False
        self.provider = provider
        self.line: Line[Job] = Line(f"{endpoint}@{revision}", bulk, target_ms, facts.curve)
        self.state = State.NEW
        self.problem = ""
        self.workers: list[Worker] = []
        self.starting = 0
        self.layout: Layout | None = None
        self.codec: Codec | None = None
        self.records: RecordCodec | None = None
        self.files: FileCodec | None = None
        self.texts: TextCodec | None = None
        self.hang_s = 0.0
        """How much longer than others a batch may take, for each of its rows."""
        self.wire_types: tuple[str, ...] = ()
        self.prepared: asyncio.Future[None] | None = None
        self.last_used = 0.0
        self.grown_at = 0.0
        self.failures = 0
        self.retry_at = 0.0
        self.held_bytes = 0
        self.measured = False
        self.on = True

    @property
    def memory_bytes(self) -> int:
        """What one worker needs: measured, with a margin; before that, what the bundle says."""
        held = self.held_bytes or self.facts.peak_bytes
        return int(held * (1 + self.limits.margin)) + 8 * MIB

    @property
    def alive(self) -> int:
        """Workers that run or start."""
        return len(self.workers) + self.starting

    @property
    def idle(self) -> bool:
        """True where nothing waits and nothing runs."""
        return not self.line.waiting_rows and not self.line.running

    def measure_is(self, curve: Curve) -> None:
        """Its batches were measured on this machine."""
        self.line.learn(curve.points)
        self.held_bytes = max(self.held_bytes, curve.memory_bytes)
        self.measured = True

    def understood(self, layout: Layout) -> None:
        """The first worker told what the graph takes and gives."""
        if self.layout is not None:
            return
        self.layout = layout
        self.wire_types = layout.wire_types
        self.configure(self.line.bulk, self.line.target_ms, self.deterministic)
        spec = self.facts.spec
        booleans: list[str] = []
        if spec is not None and layout.columns:
            features = spec.schema.features
            inputs = dict(zip([c.name for c in features], [i.name for i in layout.inputs], strict=True))
            booleans = [inputs[c.name] for c in features if c.type is SemanticType.BOOLEAN]
            self.records = RecordCodec(_as_sent(spec.schema), spec.task, layout, inputs)
        elif spec is not None and layout.texts:
            self.texts = TextCodec(spec.schema[layout.encoded], spec.task)
        elif spec is not None and layout.encoded:
            self.files = FileCodec(layout.encoded, spec.task, self.limits)
            self.hang_s = self.limits.hang_file_s
        self.codec = Codec(self.endpoint, self.revision, layout, self.limits, booleans)

    @property
    def reader(self) -> RecordCodec | FileCodec | TextCodec | None:
        """What reads the requests of people; None where the model has no columns with names."""
        return self.records or self.files or self.texts

    def configure(self, bulk: bool, target_ms: float, deterministic: bool) -> None:
        """Let settings hold from now on."""
        line = self.line
        together = not deterministic and (self.layout is None or self.layout.batches)
        if (line.bulk, line.target_ms, line.together) != (bulk, target_ms, together):
            line.bulk, line.target_ms, line.together = bulk, target_ms, together
            self.deterministic = deterministic
            line.learn(line.curve)

    def order(self) -> dict[str, Any]:
        """What the zygote is told."""
        extra = 2 * self.facts.peak_bytes + 256 * MIB
        order: dict[str, Any] = {"model": str(self.facts.model), "provider": self.provider}
        if self.facts.encoding is not None:
            pixels = self.limits.image_pixels
            order["encoding"] = {**self.facts.encoding.to_json(), "options": {"most_pixels": pixels}}
            extra += _PIXEL_BYTES * pixels
        if self.provider == "cpu":
            order["memory"] = int(extra * (1 + self.limits.margin))
        if self.layout is not None:
            order["layout"] = self.layout.to_json()
        if self.line.bulk:
            order["nice"] = NICE
        return order
