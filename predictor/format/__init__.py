"""PREDICTIONS on disk: manifest, CSV, Parquet, submission, and their checks."""
