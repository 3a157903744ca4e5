"""What the engine tells its observer, as spans and metrics of OpenTelemetry (extra ``otel``)."""
