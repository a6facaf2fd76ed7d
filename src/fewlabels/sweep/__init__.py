"""Several runs with one command."""
