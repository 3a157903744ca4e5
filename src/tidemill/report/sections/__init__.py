"""The sections of the report, one file for each question a reader asks."""
