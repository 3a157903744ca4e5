"""What families of nets share on the way through a training, whatever they learn from."""
