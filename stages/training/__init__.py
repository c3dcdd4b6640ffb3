"""What the training stages share: one run, its progress and its trackers."""
