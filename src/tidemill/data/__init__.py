"""Tables in: reading, meaning, checks, splits and immutable versions."""
