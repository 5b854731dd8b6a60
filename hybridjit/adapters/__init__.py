"""Around a model: rich arguments and results to flat tensors and back."""
