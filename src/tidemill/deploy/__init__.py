"""Serving, routing and watching: from a bundle to an endpoint that loses nothing."""
