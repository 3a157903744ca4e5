"""Bundles of tables whose columns of texts and images go through encoders inside of the graph."""
