"""From raw files to checked examples: recipes, readers, duplicates, leakage and statistics."""
