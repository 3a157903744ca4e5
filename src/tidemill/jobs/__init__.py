"""Work that runs somewhere else: steps, the executors that run them, and the limits that they keep.

`tidemill.jobs.executors.pool.ProcessExecutor` is the one that a search uses.
"""
