"""What the environment says about telemetry: the variables that OpenTelemetry itself defines, and no others."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass

_log = logging.getLogger(__name__)
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
SHARE = 0.01
"""Share of requests without a parent that become spans where the environment does not say."""
_EVERY_MS = 60_000.0


@dataclass(frozen=True)
class Settings:
    """What is sent.

    Parameters
    ----------
    spans, metrics : bool
        Which signals.
    share : float
        Share of requests without a parent that become spans.
    follow : bool
        A request with a parent is a span where its parent is one, whatever the share.
    every_s : float
        Time between two exports of the metrics.
    named : bool
        The environment names the service; else it is called ``tidemill``.
    """

    spans: bool = False
    metrics: bool = False
    share: float = SHARE
    follow: bool = True
    every_s: float = _EVERY_MS / 1e3
    named: bool = False

    @property
    def wanted(self) -> bool:
        """True where anything is sent."""
        return self.spans or self.metrics


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Read them; nothing is sent where no ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set.

    Parameters
    ----------
    environment : mapping, optional
        In place of this process's own.

    Examples
    --------
    >>> read_settings({}).wanted
    False
    >>> read_settings({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}).share
    0.01
    """
    told = os.environ if environment is None else environment
    if told.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Settings()
    share, follow = _sampler(told)
    return Settings(
        _signal(told, "TRACES"),
        _signal(told, "METRICS"),
        share,
        follow,
        max(0.1, _number(told, "OTEL_METRIC_EXPORT_INTERVAL", _EVERY_MS) / 1e3),
        bool(told.get("OTEL_SERVICE_NAME")) or "service.name=" in told.get("OTEL_RESOURCE_ATTRIBUTES", ""),
    )


def _signal(told: Mapping[str, str], name: str) -> bool:
    if not (told.get(_ENDPOINT) or told.get(f"OTEL_EXPORTER_OTLP_{name}_ENDPOINT")):
        return False
    if told.get(f"OTEL_{name}_EXPORTER", "otlp").strip().lower() == "none":
        return False
    way = told.get(f"OTEL_EXPORTER_OTLP_{name}_PROTOCOL") or told.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    if way != "http/protobuf":
        _log.warning("OTLP is sent as http/protobuf, not as %s: %s are not sent.", way, name.lower())
        return False
    return True


def _sampler(told: Mapping[str, str]) -> tuple[float, bool]:
    name = told.get("OTEL_TRACES_SAMPLER", "").strip().lower()
    follow = not name or name.startswith("parentbased_")
    match name.removeprefix("parentbased_"):
        case "always_on":
            return 1.0, follow
        case "always_off":
            return 0.0, follow
        case "traceidratio":
            return min(1.0, max(0.0, _number(told, "OTEL_TRACES_SAMPLER_ARG", 1.0))), follow
        case "":
            return SHARE, True
    _log.warning("OTEL_TRACES_SAMPLER=%s is not known; %g of all requests become spans.", name, SHARE)
    return SHARE, True


def _number(told: Mapping[str, str], name: str, default: float) -> float:
    try:
        return float(told.get(name) or default)
    except ValueError:
        _log.warning("%s=%s is no number; %g is taken.", name, told[name], default)
        return default
