"""A model on a split of a task."""
