"""A page about runs, and what is wrong with one."""
