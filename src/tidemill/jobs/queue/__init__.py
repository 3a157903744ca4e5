"""The queue of jobs: who may run what next, who runs it now, and what came of it.

`tidemill.jobs.queue.queue.JobQueue` keeps the jobs in the workspace's database,
`tidemill.jobs.queue.worker.Worker` runs them as processes of their own.
"""
