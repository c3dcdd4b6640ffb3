"""What stages share around their work: the entry point, paths, params.yaml and the launcher."""
