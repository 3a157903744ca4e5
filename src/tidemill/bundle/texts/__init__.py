"""Bundles whose input is a text: readers beside the graph turn it into numbers."""
