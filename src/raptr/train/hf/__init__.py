"""The subclass of Hugging Face's Trainer, sharding, and validation on several ranks."""
