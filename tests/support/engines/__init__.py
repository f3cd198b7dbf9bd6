"""Real engines as processes of this machine: for tests, and to try `--runner` with."""
