"""What a fit does otherwise for tables and for images: one file for each."""
