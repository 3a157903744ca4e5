"""Drift over all columns at once, from histograms that are kept with every version."""
