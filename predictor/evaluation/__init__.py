"""How good predictions are: labels, join, metrics, tables."""
