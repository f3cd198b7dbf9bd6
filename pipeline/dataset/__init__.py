"""DATASET on disk: records, manifest, ledger, and their checks."""
