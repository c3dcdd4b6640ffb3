"""Processes that make shards, on this machine or in a Ray cluster."""
