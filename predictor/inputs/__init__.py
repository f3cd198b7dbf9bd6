"""What is predicted: a split of DATASET, or photos."""
