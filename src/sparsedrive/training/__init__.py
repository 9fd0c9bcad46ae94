"""Training: losses of `losses`, frames of `data`, on Hugging Face Accelerate."""
