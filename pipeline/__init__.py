"""Multi-task deep-prompt pretraining, as a library.

Reads no argv and no params.yaml, and prints nothing; the stages do.
"""
