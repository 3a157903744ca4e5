"""Search: which config next, is it worth going on, and what to make of what was found."""
