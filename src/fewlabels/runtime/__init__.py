"""What knows nothing of learning."""
