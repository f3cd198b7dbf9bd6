"""This machine: what is said, errors, cores and memory, child processes."""
