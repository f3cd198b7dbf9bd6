"""One image: its bytes, and their conversion to a small RGB JPEG."""
