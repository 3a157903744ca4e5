"""One file per thing a person wants to do."""
