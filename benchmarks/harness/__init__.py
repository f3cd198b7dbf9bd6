"""What the benchmarks share: figures, the machine, isolated runs."""
