"""Functions of the stages that evaluate: load models and test sets."""
