"""Families that learn from images."""
