"""Telemetry: metrics and the log, both functions of one record; the only code that names a metric or a log field."""
