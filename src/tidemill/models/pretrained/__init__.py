"""Encoders that others trained, as ``save_pretrained`` of transformers writes them."""
