"""What an episode is: tensors out, no network known."""
