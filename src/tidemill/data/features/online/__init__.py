"""The newest values of every entity, answered in microseconds from packed rows."""
