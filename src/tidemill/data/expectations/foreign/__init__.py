"""Suites of other tools, run on a version as that tool runs them, their results told as our findings.

>>> sorted(KINDS)
['gx', 'pandera']
"""

from tidemill.data.expectations.foreign._base import KINDS, ForeignSuite
from tidemill.data.expectations.foreign.keep import FOREIGN, drop_foreign, keep_foreign, load_foreign
from tidemill.data.expectations.foreign.read import read_foreign
from tidemill.data.expectations.foreign.run import check_foreign

__all__ = [
    "FOREIGN",
    "KINDS",
    "ForeignSuite",
    "check_foreign",
    "drop_foreign",
    "keep_foreign",
    "load_foreign",
    "read_foreign",
]
