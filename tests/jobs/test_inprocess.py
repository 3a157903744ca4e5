"""The executor that runs steps right here."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tidemill.core.protocols import Executor
from tidemill.jobs.executors.inprocess import InProcessExecutor
from tidemill.testing.executor import ExecutorSuite, step
from tidemill.testing.steps import echo, identify


class TestInProcess(ExecutorSuite):
    @pytest.fixture
    def executor(self) -> Iterator[Executor]:
        executor = InProcessExecutor()
        yield executor
        executor.close()

    def test_steps_run_here_and_in_order(self, executor: Executor) -> None:
        for i in range(3):
            executor.submit(step(echo, value=i))
        executor.submit(step(identify))
        outcomes = [executor.wait()[0] for _ in range(4)]
        assert [o.ticket for o in outcomes] == [0, 1, 2, 3]
        assert outcomes[3].value[0] == os.getpid()

    def test_ctrl_c_goes_through(self, executor: Executor) -> None:
        executor.submit(step(interrupt))
        with pytest.raises(KeyboardInterrupt):
            executor.wait()


def interrupt() -> None:
    raise KeyboardInterrupt
