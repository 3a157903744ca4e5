"""Sees what endpoints do: counts, drift, estimated accuracy, and the rows that the next turn of the loop wants."""
