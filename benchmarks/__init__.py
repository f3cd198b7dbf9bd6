"""Measurements for the README and for those who change the code."""
