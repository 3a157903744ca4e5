"""One file for each family of recognisers."""
