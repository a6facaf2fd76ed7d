"""Every setting, and what it means for given data."""
