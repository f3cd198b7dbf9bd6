"""What `make demo` begins and ends with."""
