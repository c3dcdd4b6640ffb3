"""Features: the table on disk, its subsets, and the conversion of examples."""
