"""How good predictions are: labels, results per image, metrics, CSVs and a page."""
