"""Families that read lines of text from images."""
