"""The use cases as Python calls: what ``import tidemill`` gives, and what the command line calls."""
