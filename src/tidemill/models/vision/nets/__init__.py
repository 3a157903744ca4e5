"""Plain PyTorch modules; they know neither trials nor hardware."""
