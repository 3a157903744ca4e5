"""Encoders: what a worker does to the cells of rows before its graph, where the graph alone can't."""
