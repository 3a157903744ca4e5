"""Datasets: kept in versions, combined, looked at, governed; one file for each kind of use.

>>> from tidemill.sdk import data
>>> data.add("cases.csv", name="cases", target="fraud")  # doctest: +SKIP
>>> data.merge(["cases", "corrections"], identity=["case"], rule="trusted", trusted=["mia"])  # doctest: +SKIP
"""

from tidemill.sdk.data.choose import compare, match
from tidemill.sdk.data.govern import (
    audit_log,
    drop,
    expire,
    facts,
    forget,
    gc,
    say,
    tag,
    untag,
)
from tidemill.sdk.data.judge import drift, expect, expectations, gate, judge, overlap
from tidemill.sdk.data.keep import add, append
from tidemill.sdk.data.look import blame, check, describe, diff, export, log, verify, versions
from tidemill.sdk.data.make import dedupe, filter_, merge, relabel, sample, split
from tidemill.sdk.data.names import actor_name, dataset_name
from tidemill.sdk.data.served import skew

__all__ = [
    "actor_name",
    "add",
    "append",
    "audit_log",
    "blame",
    "check",
    "compare",
    "dataset_name",
    "dedupe",
    "describe",
    "diff",
    "drift",
    "drop",
    "expect",
    "expectations",
    "expire",
    "export",
    "facts",
    "filter_",
    "forget",
    "gate",
    "gc",
    "judge",
    "log",
    "match",
    "merge",
    "overlap",
    "relabel",
    "sample",
    "say",
    "skew",
    "split",
    "tag",
    "untag",
    "verify",
    "versions",
]
