"""Deep training: a module, a loss, samples and a recipe, on whatever hardware there is.

`tidemill.train.types` holds the values and seams and loads nothing heavy; `tidemill.train.runtime` trains and predicts
and needs PyTorch (the extra ``deep``).
"""
