"""The program beside a bundle that takes texts."""
