"""IMAGES as a listing: folders, tars, buckets and CSVs; splits and classes."""
