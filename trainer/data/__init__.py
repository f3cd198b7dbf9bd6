"""Training data: input pipeline, permutation, augmentation."""
