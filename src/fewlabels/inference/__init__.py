"""The model, measured and asked."""
