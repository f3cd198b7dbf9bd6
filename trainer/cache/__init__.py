"""What is kept from epoch to epoch: JPEGs, pixels, or features."""
