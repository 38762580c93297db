"""What happens to an image between its source and a batch."""
