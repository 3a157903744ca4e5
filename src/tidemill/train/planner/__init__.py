"""Where to train what: from a model and a description of hardware to a placement, with reasons and numbers."""
