"""What a fit does otherwise for tables, images, texts and lines of text: one file for each."""
