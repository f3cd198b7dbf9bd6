"""Checks of whether this node can train."""
