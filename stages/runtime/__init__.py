"""Code shared by all stages: the entry point, paths, params.yaml and the launcher."""
