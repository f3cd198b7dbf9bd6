"""The shard job beside other ways."""
