"""Timings that can be repeated: each figure is a ratio of two things timed in turn in one process."""
