"""Multi-task deep-prompt pretraining, as a library.

It reads neither `sys.argv` nor params.yaml and prints nothing. The stages do that.
"""
