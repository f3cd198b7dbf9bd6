"""Child processes that answer requests, and memory shared with them."""
