"""Bundles that read a line of text from an image: the same resize that training used inside, a transcript out."""
