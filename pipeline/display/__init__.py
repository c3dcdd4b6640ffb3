"""Texts with labeled spans as HTML and as plain text."""
