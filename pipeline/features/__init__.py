"""Features: the table on disk, subsets of it, and making it from examples."""
