"""Shards: planned, written one by one, isolated, and put together."""
