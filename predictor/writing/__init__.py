"""Output shards, written by processes of their own."""
