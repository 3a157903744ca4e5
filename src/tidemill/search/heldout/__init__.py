"""What searches share whose models are trained once and judged on what was held out: images, texts, lines."""
