"""Interoperability: prompts of peft and P-tuning v2, and model cards for the Hugging Face Hub."""
