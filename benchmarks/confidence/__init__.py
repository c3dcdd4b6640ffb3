"""Comparison of methods that give the confidence in an answer."""
