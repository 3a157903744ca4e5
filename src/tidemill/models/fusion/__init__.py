"""Columns of texts and images of a table, made numbers by trained encoders that stay as they are."""
