"""A job of a known kind, done by a function of a test in its place."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tidemill.jobs.queue.kinds import Kinds
from tidemill.jobs.queue.queue import JobQueue
from tidemill.jobs.queue.types import Capacity, Job, Request
from tidemill.jobs.queue.worker import Worker
from tidemill.sdk.job_kinds import KINDS
from tidemill.store.workspace import Workspace


def work_off(workspace: Workspace, kind: str, words: Mapping[str, Any], call: str) -> tuple[Job, list[str | None]]:
    """Queue a job whose kind calls ``call``, run a worker until it is done, and give it and how its attempts ended."""
    queue = JobQueue(workspace.database, first_pause_s=0.1)
    job = queue.submit(Request(kind, dict(words)))
    (known,) = (each for each in KINDS if each.name == kind)
    worker = Worker(workspace, Kinds([replace(known, call=call)]), Capacity(2, 10**10), queue=queue)
    worker.run(threading.Event(), until_idle=True)
    return queue.get(job.id), [attempt.outcome for attempt in queue.attempts(job.id)]
