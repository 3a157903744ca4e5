"""What is expected of the next version of a dataset, and what happens where it is not met."""
