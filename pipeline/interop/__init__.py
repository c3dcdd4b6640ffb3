"""Exchange with other libraries: prompts of peft and P-tuning v2, and model cards of the Hugging Face hub."""
