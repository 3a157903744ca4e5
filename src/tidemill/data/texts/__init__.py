"""Texts as data: which column holds them, and how many of them travel to workers."""
