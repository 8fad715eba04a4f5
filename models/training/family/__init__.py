"""The shipped tiny family learns here: one loop, and one file a network."""
