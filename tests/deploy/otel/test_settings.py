"""The variables of OpenTelemetry mean what they mean everywhere."""

from __future__ import annotations

import pytest

from tidemill.deploy.otel.settings import SHARE, read_settings

ALL = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


def test_nothing_is_sent_where_nobody_asks() -> None:
    assert not read_settings({}).wanted
    assert not read_settings({"OTEL_SERVICE_NAME": "x"}).wanted
    assert not read_settings(ALL | {"OTEL_SDK_DISABLED": "TRUE"}).wanted


@pytest.mark.parametrize(
    ("more", "spans", "metrics"),
    [
        ({}, True, True),
        ({"OTEL_TRACES_EXPORTER": "none"}, False, True),
        ({"OTEL_METRICS_EXPORTER": "none"}, True, False),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False, False),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf"}, False, True),
    ],
)
def test_each_signal_is_asked_for_alone(more: dict[str, str], spans: bool, metrics: bool) -> None:
    settings = read_settings(ALL | more)
    assert (settings.spans, settings.metrics) == (spans, metrics)


def test_one_signal_may_have_an_endpoint_of_its_own() -> None:
    settings = read_settings({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:4318/v1/metrics"})
    assert (settings.spans, settings.metrics) == (False, True)


@pytest.mark.parametrize(
    ("name", "argument", "share", "follow"),
    [
        ("", "", SHARE, True),
        ("always_on", "", 1.0, False),
        ("always_off", "", 0.0, False),
        ("parentbased_always_off", "", 0.0, True),
        ("traceidratio", "0.25", 0.25, False),
        ("parentbased_traceidratio", "0.5", 0.5, True),
        ("parentbased_traceidratio", "", 1.0, True),
        ("traceidratio", "7", 1.0, False),
        ("jaeger_remote", "", SHARE, True),
    ],
)
def test_samplers(name: str, argument: str, share: float, follow: bool) -> None:
    settings = read_settings(ALL | {"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument})
    assert (settings.share, settings.follow) == (share, follow)


def test_what_can_not_be_read_is_told_and_the_usual_is_taken(caplog: pytest.LogCaptureFixture) -> None:
    settings = read_settings(ALL | {"OTEL_METRIC_EXPORT_INTERVAL": "soon"})
    assert settings.every_s == 60.0
    assert "soon" in caplog.text
    assert read_settings(ALL | {"OTEL_METRIC_EXPORT_INTERVAL": "2000"}).every_s == 2.0


def test_a_service_may_have_a_name_of_its_own() -> None:
    assert not read_settings(ALL).named
    assert read_settings(ALL | {"OTEL_SERVICE_NAME": "shop"}).named
    assert read_settings(ALL | {"OTEL_RESOURCE_ATTRIBUTES": "a=b,service.name=shop"}).named
