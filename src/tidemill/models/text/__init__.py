"""Families that learn from texts."""
