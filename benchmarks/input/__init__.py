"""The input pipeline beside other ways."""
