"""What is in a DATASET, as a page; needs jinja2 and matplotlib."""
