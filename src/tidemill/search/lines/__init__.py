"""What a search does otherwise where its rows are lines of text."""
