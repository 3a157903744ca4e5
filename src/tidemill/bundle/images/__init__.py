"""Bundles whose input is an image: any size in, the same resize that training used inside."""
