"""The program beside a bundle that takes rows with texts or images among their columns."""
