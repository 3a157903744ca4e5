"""The queue in the workspace's database, SQLite or PostgreSQL: every change of a job is one transaction.

Two things keep it whole. A job is claimed, and its attempt is ended, by one compare-and-set update: it names the state
and the attempt that must stand there, so of two that come at once one changes nothing. And whoever changes the state of
a job holds the queue's lock for these milliseconds (SQLite has one writer anyhow, PostgreSQL an advisory lock), so that
quotas, devices and dependencies are counted by one at a time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, func, insert, or_, select, text, update

from tidemill.core.errors import ConflictError, NotFoundError, OptionError
from tidemill.core.protocols import Change
from tidemill.jobs.queue import rules
from tidemill.jobs.queue.graph import in_order, places_of
from tidemill.jobs.queue.types import ENDED, HELD, OPEN, Attempt, Claimant, Ending, Job, JobState, Quota, Request, Until
from tidemill.store.database import Database
from tidemill.store.records import SqlRecordStore
from tidemill.store.tables import job_attempts, job_needs, jobs

LEASE_S = 30.0
"""A job that neither its worker nor its own process has spoken for in so many seconds is lost."""
QUOTA = "job_quota"
"""Kind of the records that hold quotas, by owner."""
EVERYBODY = "*"
"""Owner of the quota of all who have none of their own."""

_LOCK = 0x71DE_3112  # any number that is ours, and not the one of `tidemill.store.upgrade`
_LOOKED_AT = 500  # jobs of the line that one claim looks at
_HELD = [state.value for state in HELD]


class JobQueue:
    """The jobs of a workspace. Safe for many threads, processes and machines at once.

    Machines that share a queue must agree on the time to within some seconds: leases are compared with it.

    Parameters
    ----------
    database : Database
        The workspace's, `tidemill.store.workspace.Workspace.database`.
    clock : callable
        Gives the time in seconds since 1970.
    lease_s : float
        See `LEASE_S`.
    first_pause_s : float
        Pause after the first failed attempt; each further one is twice as long.

    Examples
    --------
    >>> import tempfile, os
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     database = Database(f"sqlite:///{os.path.join(folder, 'metadata.db')}")
    ...     queue = JobQueue(database)
    ...     job = queue.submit(Request("gc"))
    ...     queue.cancel(job.id).state.value
    ...     database.close()
    'cancelled'
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], float] = time.time,
        lease_s: float = LEASE_S,
        first_pause_s: float = rules.FIRST_PAUSE_S,
    ) -> None:
        self._database = database
        self._records = SqlRecordStore(database, clock=clock)
        self._clock = clock
        self.lease_s = lease_s
        self.first_pause_s = first_pause_s

    # --------------------------------------------------------------------------------------------------------- asking

    def submit(self, request: Request) -> Job:
        """Queue one job; see `submit_all`."""
        return self.submit_all([request])[0]

    def submit_all(self, requests: Sequence[Request]) -> list[Job]:
        """Queue jobs that may need each other, all or none.

        Parameters
        ----------
        requests : sequence of Request
            In any order.

        Returns
        -------
        list of Job
            In the order of the requests.

        Raises
        ------
        NotFoundError
            Where a job is needed that is not there.
        OptionError
            Where jobs wait for each other, or an owner would have more than the quota allows.
        """
        order, places = in_order(requests), places_of(requests)
        quotas = self._quotas()
        with self._changing() as connection:
            self._check_quotas(connection, requests, quotas)
            ids: dict[int, int] = {}
            for place in order:
                request = requests[place]
                needs = {n if isinstance(n, int) else ids[places[n]]: until for n, until in request.needs.items()}
                ids[place] = self._insert(connection, request, needs)
            return [_one(connection, ids[place]) for place in range(len(requests))]

    def cancel(self, job: int, *, force: bool = False, by: str = "") -> Job:
        """End a job: at once where it does not run, else by asking it to stop, which the worker sees to.

        Parameters
        ----------
        job : int
            Its id.
        force : bool
            Kill it without asking.
        by : str
            Who wants it, for the record.

        Raises
        ------
        ConflictError
            Where it has ended already.
        """
        now = self._clock()
        with self._changing() as connection:
            found = _one(connection, job)
            if found.state in ENDED:
                raise ConflictError(f"Job {job} has ended already: it is {found.state.value}.")
            if found.state in HELD:
                why = "force" if force else "cancel"
                since = now if force or found.stop_at is None else found.stop_at
                _change(connection, job, state=JobState.STOPPING.value, stop=why, stop_at=since)
            else:
                error = f"It was cancelled by {by}." if by else "It was cancelled."
                _change(connection, job, state=JobState.CANCELLED.value, finished_at=now, error=error)
                _settle(connection, [job], now)
            return _one(connection, job)

    def retry(self, job: int, *, attempts: int = 3) -> Job:
        """Queue a job again that has failed, was cancelled, lost or skipped; who was skipped for it waits again.

        Parameters
        ----------
        job : int
            Its id. It goes on from its checkpoint, and keeps its place in the line.
        attempts : int
            How often it may be tried from now on.

        Raises
        ------
        ConflictError
            Where it is done, still open, or needs a job that did not succeed.
        """
        if attempts < 1:
            raise OptionError(f"A job must be tried at least once, but got {attempts}.", where="attempts")
        now = self._clock()
        with self._changing() as connection:
            found = _one(connection, job)
            if found.state in OPEN:
                raise ConflictError(f"Job {job} has not ended: it is {found.state.value}.")
            if found.state is JobState.DONE:
                raise ConflictError(f"Job {job} is done.", hint="Submit it again to run it once more.")
            if not _revive(connection, found, now, attempts):
                names = ", ".join(str(n) for n in _unmet(connection, job))
                raise ConflictError(f"Job {job} needs job {names}, which did not succeed.", hint="Retry that one.")
            skipped = [job]
            while skipped:
                followers = [_one(connection, n) for n in _followers(connection, skipped, JobState.SKIPPED)]
                skipped = [f.id for f in followers if _revive(connection, f, now, f.max_attempts)]
            return _one(connection, job)

    def set_quota(self, owner: str, quota: Quota | None) -> None:
        """Say what an owner (or `EVERYBODY`) may have at a time; None takes it back."""
        self._records.put_all([quota_change(owner, quota)])

    def quotas(self) -> dict[str, Quota]:
        """All quotas by owner."""
        return self._quotas()

    # -------------------------------------------------------------------------------------------------------- looking

    def get(self, job: int) -> Job:
        """Raises `NotFoundError`."""
        with self._database.transaction() as connection:
            return _one(connection, job)

    def jobs(
        self, *, states: Iterable[JobState] = (), owner: str | None = None, kind: str | None = None, limit: int = 100
    ) -> list[Job]:
        """The newest jobs of these states, owner and kind, newest first."""
        query = select(jobs).order_by(jobs.c.id.desc()).limit(limit)
        wanted = [state.value for state in states]
        if wanted:
            query = query.where(jobs.c.state.in_(wanted))
        if owner is not None:
            query = query.where(jobs.c.owner == owner)
        if kind is not None:
            query = query.where(jobs.c.kind == kind)
        with self._database.transaction() as connection:
            return [_job(row) for row in connection.execute(query)]

    def counts(self) -> dict[JobState, int]:
        """Number of jobs by state; states without jobs are absent."""
        query = select(jobs.c.state, func.count()).group_by(jobs.c.state)
        with self._database.transaction() as connection:
            return {JobState(state): int(number) for state, number in connection.execute(query)}

    def attempts(self, job: int) -> list[Attempt]:
        """All attempts at a job, first to last."""
        query = select(job_attempts).where(job_attempts.c.job_id == job).order_by(job_attempts.c.number)
        with self._database.transaction() as connection:
            return [Attempt(**row._mapping) for row in connection.execute(query)]

    def needs(self, job: int) -> dict[int, Until]:
        """What a job needs, by id."""
        with self._database.transaction() as connection:
            return {number: until for number, _, until in _needs(connection, job)}

    def position(self, job: Job) -> int | None:
        """How many jobs of the line are not after this one, itself included; None where it is not in the line."""
        if job.state is not JobState.QUEUED:
            return None
        ahead = or_(jobs.c.turn < job.turn, and_(jobs.c.turn == job.turn, jobs.c.id <= job.id))
        query = select(func.count()).where(jobs.c.state == JobState.QUEUED.value, ahead)
        with self._database.transaction() as connection:
            return int(connection.execute(query).scalar_one())

    # -------------------------------------------------------------------------------------------------------- working

    def claim(self, by: Claimant) -> Job | None:
        """Take the next job that fits a worker: no other has it from now on. None where there is none."""
        now = self._clock()
        if not self._anything(by, now):
            return None
        quotas = self._quotas()
        with self._changing() as connection:
            running = [_job(row) for row in connection.execute(select(jobs).where(jobs.c.state.in_(_HELD)))]
            counts = Counter(job.owner for job in running)
            full = {o for o in {*counts, *quotas} if _reached(_quota(quotas, o).running, counts[o])}
            query = select(jobs).where(_due(by, now), jobs.c.owner.not_in(sorted(full)))
            line = connection.execute(query.order_by(jobs.c.turn, jobs.c.id).limit(_LOOKED_AT))
            mine = (job for job in map(_job, line.all()) if not _reached(_quota(quotas, job.owner).running, 0))
            chosen = rules.choose(mine, by, running, now)
            if chosen is None:
                return None
            job, held = chosen
            return self._take(connection, job, held, by, now)

    def begin(self, job: int, attempt: int, pid: int, mark: str) -> Job:
        """Say that a process runs an attempt; before this it must do nothing.

        Raises
        ------
        ConflictError
            Where the attempt is not to be run: another process runs it, or it was given up in the meantime.
        """
        with self._database.transaction(write=True) as connection:
            mine = and_(_ours(job, attempt), jobs.c.pid.is_(None))
            lease = self._clock() + self.lease_s
            if not _set(connection, mine, pid=pid, mark=mark, lease_until=lease):
                raise ConflictError(f"Attempt {attempt} of job {job} is not to be run any more.")
            return _one(connection, job)

    def beat(self, claims: Iterable[tuple[int, int]], progress: Mapping[str, Any] | None = None) -> dict[int, Job]:
        """Say that attempts live, given as ``(job, attempt)``.

        Parameters
        ----------
        claims : iterable of tuple
            The attempts.
        progress : mapping, optional
            What they say of themselves.

        Returns
        -------
        dict
            Jobs by id that may go on. One that is absent was given to somebody else: its process must end.
        """
        wanted = list(claims)
        values: dict[str, Any] = {"lease_until": self._clock() + self.lease_s}
        if progress is not None:
            values["progress"] = dict(progress)
        with self._database.transaction(write=True) as connection:
            ours = [job for job, attempt in wanted if _set(connection, _ours(job, attempt), **values)]
            return {job: _one(connection, job) for job in ours}

    def stop(self, job: int, attempt: int, why: str) -> bool:
        """Ask an attempt to stop that nobody has asked yet; False where there is none."""
        with self._changing() as connection:
            mine = and_(_ours(job, attempt), jobs.c.stop == "")
            now = self._clock()
            return _set(connection, mine, state=JobState.STOPPING.value, stop=why, stop_at=now)

    def finish(self, job: int, attempt: int, ending: Ending) -> Job:
        """End an attempt, and the job with it where nothing is left to try.

        Raises
        ------
        ConflictError
            Where the attempt has ended before: whoever came first is heard.
        """
        with self._changing() as connection:
            found = _one(connection, job)
            if found.attempt != attempt or found.state not in HELD:
                raise ConflictError(f"Attempt {attempt} of job {job} has ended already.")
            return self._end(connection, found, ending, self._clock())

    # --------------------------------------------------------------------------------------------------------- minding

    def held(self, *, host: str | None = None) -> list[Job]:
        """Jobs that workers have; of one machine, or all."""
        query = select(jobs).where(jobs.c.state.in_(_HELD)).order_by(jobs.c.id)
        if host is not None:
            query = query.where(jobs.c.host == host)
        with self._database.transaction() as connection:
            return [_job(row) for row in connection.execute(query)]

    def expired(self) -> list[Job]:
        """Jobs that workers have and nobody has spoken for in time."""
        query = select(jobs).where(jobs.c.state.in_(_HELD), jobs.c.lease_until < self._clock()).order_by(jobs.c.id)
        with self._database.transaction() as connection:
            return [_job(row) for row in connection.execute(query)]

    def anything_for(self, by: Claimant) -> bool:
        """Whether a worker could ever claim one of the jobs that are in the line now, also after a pause."""
        return self._anything(by, float("inf"))

    def adopt(self, job: Job, worker: str) -> Job | None:
        """Take over a job whose worker has gone; None where another was quicker."""
        with self._changing() as connection:
            mine = and_(_ours(job.id, job.attempt), jobs.c.worker == job.worker)
            if not _set(connection, mine, worker=worker, lease_until=self._clock() + self.lease_s):
                return None
            return _one(connection, job.id)

    def lose(self, job: Job) -> Job | None:
        """Give up an attempt whose lease is over, so that it is tried again; None where somebody spoke for it."""
        now = self._clock()
        with self._changing() as connection:
            found = _one(connection, job.id)
            if found.attempt != job.attempt or found.state not in HELD or found.lease_until >= now:
                return None
            error = f"Nobody on {found.host} has spoken for it for {self.lease_s:g} s."
            return self._end(connection, found, Ending("lost", error=error, at=found.lease_until), now)

    # ---------------------------------------------------------------------------------------------------------- inside

    @contextmanager
    def _changing(self) -> Iterator[Connection]:
        with self._database.transaction(write=True) as connection:
            if not self._database.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            yield connection

    def _quotas(self) -> dict[str, Quota]:
        return {r.key: Quota(r.body["running"], r.body["queued"]) for r in self._records.find(QUOTA)}

    def _check_quotas(self, connection: Connection, requests: Sequence[Request], quotas: Mapping[str, Quota]) -> None:
        for owner, number in Counter(r.owner for r in requests).items():
            most = _quota(quotas, owner).queued
            if most is None:
                continue
            waiting = [JobState.WAITING.value, JobState.QUEUED.value]
            query = select(func.count()).where(jobs.c.owner == owner, jobs.c.state.in_(waiting))
            there = int(connection.execute(query).scalar_one())
            if there + number > most:
                raise OptionError(
                    f"{owner or 'Everybody'} may have {most} jobs waiting; there are {there}, and {number} would come.",
                    hint="Wait until some have run, or cancel some.",
                )

    def _insert(self, connection: Connection, request: Request, needs: Mapping[int, Until]) -> int:
        now = self._clock()
        states = [(_one(connection, number).state, until) for number, until in needs.items()]
        state = rules.readiness(states)
        skipped = state is JobState.SKIPPED
        values = {
            "name": request.called,
            "kind": request.kind,
            "arguments": dict(request.arguments),
            "owner": request.owner,
            "state": state.value,
            "priority": request.priority,
            "turn": rules.turn(request.priority, now),
            "ready_at": now,
            "cpus": request.cpus,
            "memory_bytes": request.memory_bytes,
            "devices": request.devices,
            "device_bytes": request.device_bytes,
            "time_s": request.time_s,
            "max_attempts": request.max_attempts,
            "submitted_at": now,
            "finished_at": now if skipped else None,
            "error": "A job that it needs has not succeeded." if skipped else None,
            **_NOTHING_YET,
        }
        number = connection.execute(insert(jobs).values(**values).returning(jobs.c.id)).scalar_one()
        for other, until in needs.items():
            connection.execute(insert(job_needs).values(job_id=number, needs_id=other, until=until.value))
        return int(number)

    def _anything(self, by: Claimant, now: float) -> bool:
        # Asked by every idle worker every second: readers wait for nobody, writers for each other.
        with self._database.transaction() as connection:
            return connection.execute(select(jobs.c.id).where(_due(by, now)).limit(1)).first() is not None

    def _take(self, connection: Connection, job: Job, held: tuple[str, ...], by: Claimant, now: float) -> Job | None:
        mine = and_(jobs.c.id == job.id, jobs.c.state == JobState.QUEUED.value, jobs.c.attempt == job.attempt)
        values = {
            "state": JobState.RUNNING.value,
            "attempt": job.attempt + 1,
            "worker": by.id,
            "host": by.host,
            "pid": None,
            "mark": "",
            "held": list(held),
            "lease_until": now + self.lease_s,
            "stop": "",
            "stop_at": None,
            "started_at": now,
            "progress": {},
            "error": None,
        }
        if not _set(connection, mine, **values):
            return None
        attempt = {"number": job.attempt + 1, "worker": by.id, "host": by.host, "started_at": now}
        connection.execute(insert(job_attempts).values(job_id=job.id, outcome="running", **attempt))
        return _one(connection, job.id)

    def _end(self, connection: Connection, job: Job, ending: Ending, now: float) -> Job:
        verdict = rules.after(job, ending, now, self.first_pause_s)
        over, at = verdict.state in ENDED, ending.ended_at(now)
        values: dict[str, Any] = {
            "state": verdict.state.value,
            "pid": None,
            "mark": "",
            "held": [],
            "lease_until": 0.0,
            "spent_s": job.spent_s + max(0.0, at - (job.started_at or at)),
            "ready_at": verdict.ready_at if verdict.ready_at is not None else job.ready_at,
            "finished_at": now if over else None,
            "result": ending.result if verdict.state is JobState.DONE else None,
            "error": verdict.error,
        }
        if not _set(connection, _ours(job.id, job.attempt), **values):
            raise ConflictError(f"Attempt {job.attempt} of job {job.id} has ended already.")
        this = and_(job_attempts.c.job_id == job.id, job_attempts.c.number == job.attempt)
        told = {"finished_at": at, "outcome": ending.outcome, "error": ending.error}
        connection.execute(update(job_attempts).where(this).values(**told))
        if over:
            _settle(connection, [job.id], now)
        return _one(connection, job.id)


def quota_change(owner: str, quota: Quota | None) -> Change:
    """Give the change of a record by which an owner gets a quota, or loses it, for who has more to write beside it."""
    return Change(QUOTA, owner, None if quota is None else {"running": quota.running, "queued": quota.queued})


_NOTHING_YET: dict[str, Any] = {
    "attempt": 0,
    "spent_s": 0.0,
    "worker": "",
    "host": "",
    "mark": "",
    "held": [],
    "lease_until": 0.0,
    "stop": "",
    "progress": {},
}


def _job(row: Row[Any]) -> Job:
    return Job(**{**row._mapping, "state": JobState(row.state), "held": tuple(row.held)})


def _one(connection: Connection, job: int) -> Job:
    row = connection.execute(select(jobs).where(jobs.c.id == job)).one_or_none()
    if row is None:
        raise NotFoundError(f"There is no job {job}.", hint="See: tidemill jobs list")
    return _job(row)


def _set(connection: Connection, where: ColumnElement[bool], **values: Any) -> bool:
    """Change the one job that is as ``where`` says; False where there is none."""
    return connection.execute(update(jobs).where(where).values(**values)).rowcount == 1


def _change(connection: Connection, job: int, **values: Any) -> None:
    connection.execute(update(jobs).where(jobs.c.id == job).values(**values))


def _ours(job: int, attempt: int) -> ColumnElement[bool]:
    return and_(jobs.c.id == job, jobs.c.attempt == attempt, jobs.c.state.in_(_HELD))


def _due(by: Claimant, now: float) -> ColumnElement[bool]:
    """Jobs that may be claimed now and would fit the worker if it had nothing else to do."""
    devices = by.capacity.devices
    return and_(
        jobs.c.state == JobState.QUEUED.value,
        jobs.c.ready_at <= now,
        jobs.c.kind.in_(sorted(by.kinds)),
        jobs.c.cpus <= by.capacity.cpus,
        jobs.c.memory_bytes <= by.capacity.memory_bytes,
        jobs.c.devices <= len(devices),
        jobs.c.device_bytes <= max((d.usable for d in devices), default=0),
    )


def _quota(quotas: Mapping[str, Quota], owner: str) -> Quota:
    return quotas.get(owner) or quotas.get(EVERYBODY) or Quota()


def _reached(most: int | None, number: int) -> bool:
    return most is not None and number >= most


# --------------------------------------------------------------------------------------------------------- dependencies


def _needs(connection: Connection, job: int) -> list[tuple[int, JobState, Until]]:
    query = select(job_needs.c.needs_id, jobs.c.state, job_needs.c.until).join(jobs, jobs.c.id == job_needs.c.needs_id)
    rows = connection.execute(query.where(job_needs.c.job_id == job).order_by(job_needs.c.needs_id))
    return [(int(number), JobState(state), Until(until)) for number, state, until in rows]


def _unmet(connection: Connection, job: int) -> list[int]:
    return [
        number
        for number, state, until in _needs(connection, job)
        if rules.readiness([(state, until)]) is JobState.SKIPPED
    ]


def _followers(connection: Connection, of: Sequence[int], state: JobState) -> list[int]:
    """Jobs of a state that need one of these."""
    query = select(jobs.c.id).join(job_needs, job_needs.c.job_id == jobs.c.id)
    rows = connection.execute(query.where(job_needs.c.needs_id.in_(of), jobs.c.state == state.value).distinct())
    return sorted(int(row.id) for row in rows)


def _settle(connection: Connection, ended: Sequence[int], now: float) -> None:
    """Let those go on that waited for jobs that have ended now, and skip those that wait in vain."""
    while ended:
        skipped = []
        for job in _followers(connection, ended, JobState.WAITING):
            state = rules.readiness((s, until) for _, s, until in _needs(connection, job))
            if state is JobState.QUEUED:
                _change(connection, job, state=state.value, ready_at=now)
            elif state is JobState.SKIPPED:
                names = ", ".join(str(n) for n in _unmet(connection, job))
                error = f"It needs job {names}, which did not succeed."
                _change(connection, job, state=state.value, finished_at=now, error=error)
                skipped.append(job)
        ended = skipped


def _revive(connection: Connection, job: Job, now: float, attempts: int) -> bool:
    """Put an ended job back into the line; False where it would wait in vain."""
    state = rules.readiness((s, until) for _, s, until in _needs(connection, job.id))
    if state is JobState.SKIPPED:
        return False
    fresh = {"finished_at": None, "error": None, "result": None, "stop": "", "stop_at": None, "spent_s": 0.0}
    most = job.attempt + attempts
    _change(connection, job.id, state=state.value, ready_at=now, max_attempts=most, **fresh)
    return True
