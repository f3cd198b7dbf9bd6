"""Files and objects: paths, atomic commits, resumable and locked folders."""
