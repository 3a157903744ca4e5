"""Expectation suites of Great Expectations, over pandas frames, in memory and without a project folder."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from tidemill.core.errors import DataError, MissingExtraError
from tidemill.data.checks._base import Finding, Severity
from tidemill.data.expectations.foreign._base import ForeignSuite
from tidemill.data.expectations.foreign.read import tree_of

CODE = "gx"
_SHOWN = 5
_HINT = "Mend the data, or edit the suite."
_SEVERITIES: dict[str, Severity] = {"critical": "error", "warning": "warning", "info": "info"}
_ANALYTICS = "GX_ANALYTICS_ENABLED"


def findings(frame: Any, suite: ForeignSuite) -> Iterator[Finding]:
    """Validate a frame; an expectation's own severity says how bad it is, and without one it is an error."""
    wanted = _expectations(suite)
    with warnings.catch_warnings(), _silent():
        warnings.simplefilter("ignore")  # of the tool about itself
        try:
            gx = import_module("great_expectations")
        except ModuleNotFoundError as error:
            raise MissingExtraError.of("great_expectations", "to run its suites", extra="gx") from error
        form = import_module("great_expectations.expectations.expectation_configuration").ExpectationConfiguration
        built = [form(**one).to_domain_obj() for one in wanted]  # a suite would leave out what it can't build
        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        asset = context.data_sources.add_pandas("tidemill").add_dataframe_asset("rows")
        batch = asset.add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
        known = gx.ExpectationSuite(name="tidemill", expectations=built)
        result = batch.validate(known, result_format="SUMMARY").to_json_dict()
    for one in result["results"]:
        if not one["success"]:
            yield _finding(one)


def _expectations(suite: ForeignSuite) -> list[dict[str, Any]]:
    """Give the expectations in the words of the tool's present version, whichever wrote them."""
    out = []
    for number, one in enumerate(tree_of(suite)["expectations"], 1):
        kind = one.get("type") or one.get("expectation_type") if isinstance(one, dict) else None
        if not isinstance(kind, str) or not isinstance(one.get("kwargs", {}), dict):
            raise DataError(f"Expectation {number} has no `type`, or its `kwargs` are no mapping.", where=suite.where)
        known = {"type": kind, "kwargs": dict(one.get("kwargs", {})), "meta": one.get("meta") or {}}
        out.append({**known, **({"severity": one["severity"]} if one.get("severity") else {})})
    return out


def _finding(one: Mapping[str, Any]) -> Finding:
    config = one["expectation_config"]
    kwargs = config["kwargs"]
    column = kwargs.get("column")
    severity = _SEVERITIES.get(str(config.get("severity") or "critical").lower(), "error")
    raised = _exception(one.get("exception_info") or {})
    words = config["type"].removeprefix("expect_").replace("_", " ")
    told = ", ".join(f"{k}={v!r}" for k, v in kwargs.items() if k not in ("column", "batch_id") and v is not None)
    said = f" ({told})" if told else ""
    if raised:
        return Finding("error", CODE, column, f"Can't be checked: {words}{said}. {raised}", _HINT)
    return Finding(severity, CODE, column, f"Expected: {words}{said}. {_observed(one.get('result') or {})}", _HINT)


def _observed(result: Mapping[str, Any]) -> str:
    if result.get("unexpected_count"):
        shown = list(dict.fromkeys(repr(v) for v in result.get("partial_unexpected_list") or []))[:_SHOWN]
        such = f", such as {', '.join(shown)}" if shown else ""
        return f"{result['unexpected_count']:,} of {result.get('element_count', 0):,} rows are otherwise{such}."
    if "observed_value" in result:
        return f"Found: {str(result['observed_value'])[:200]}."
    return "It does not hold."


def _exception(info: Mapping[str, Any]) -> str:
    """Say what an expectation raised; the tool writes that flat or by metric."""
    found = [info, *(v for v in info.values() if isinstance(v, Mapping))]
    said = next((i.get("exception_message") for i in found if i.get("raised_exception")), None)
    return " ".join(str(said).split())[:300] if said else ""


@contextmanager
def _silent() -> Iterator[None]:
    """Let the tool tell nobody that it was used: it reads this when it is imported, and asks it for each context."""
    before = os.environ.get(_ANALYTICS)
    os.environ[_ANALYTICS] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_ANALYTICS]
        else:
            os.environ[_ANALYTICS] = before
