"""Portfolios as data; `bench/portfolio/learn.py` makes them."""
