"""Plain modules of PyTorch that read lines; they know neither trials nor hardware."""
