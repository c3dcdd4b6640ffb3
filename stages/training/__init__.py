"""Code shared by the training stages: the run, its progress and its trackers."""
