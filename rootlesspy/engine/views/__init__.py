"""What is shown of containers."""
