"""The feature store: groups of features by entity, joined as of a time and answered online."""
