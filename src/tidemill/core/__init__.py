"""The vocabulary of Tidemill: plain types, metrics, objectives, errors; numpy and the standard library only."""
