"""``monitor/reference.json``: how features and predictions looked in training, and how far chance alone moves them.

A column is described by counts in cells. Cells of a number are its own quantiles, so that every part of the data has
the same say; cells of a category are its commonest values. The same cells are counted in production, where counts of
any two periods, processes or machines add up. How far counts of ``n`` rows may be from the reference by chance is found
here, for each column, by drawing from the reference again and again.
"""
