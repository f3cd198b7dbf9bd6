"""A Flink cluster on this machine, to try `--runner=flink` with."""
