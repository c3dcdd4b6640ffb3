"""How fast it is, beside full fine-tuning and peft: `python -m benchmarks.speed [PART ...]`; a module a part."""
