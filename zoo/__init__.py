"""Artifacts that ship with the project, one folder each; `pipeline.artifacts.zoo` finds them."""
