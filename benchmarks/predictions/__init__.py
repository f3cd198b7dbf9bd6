"""Writers of predictions beside other ways."""
