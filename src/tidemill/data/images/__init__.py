"""Images as data: where they are, what they show, and what can't be read."""
