"""The feature store: register groups, push rows, ask for values as of a time or for now; one file for each kind of use.

>>> from tidemill.sdk import features
>>> features.register("user.yaml")  # doctest: +SKIP
>>> features.push("user", "users.parquet")  # doctest: +SKIP
"""

from tidemill.sdk.features.define import duration_s, infer_group, register
from tidemill.sdk.features.doors import Place, online_features, opened
from tidemill.sdk.features.govern import audit_log, forget, say
from tidemill.sdk.features.keep import materialize, push
from tidemill.sdk.features.look import describe, get, groups, historical, match, parse_key, verify

__all__ = [
    "Place",
    "audit_log",
    "describe",
    "duration_s",
    "forget",
    "get",
    "groups",
    "historical",
    "infer_group",
    "match",
    "materialize",
    "online_features",
    "opened",
    "parse_key",
    "push",
    "register",
    "say",
    "verify",
]
