"""Evaluation of a model on a split of a task."""
