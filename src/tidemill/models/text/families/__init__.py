"""One file for each family of texts."""
