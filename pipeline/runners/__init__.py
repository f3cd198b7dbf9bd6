"""Runners of the Beam job: this machine, and those that Beam knows."""
