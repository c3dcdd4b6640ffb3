"""Training speed against full fine-tuning and peft: `python -m benchmarks.speed [PART ...]`."""
