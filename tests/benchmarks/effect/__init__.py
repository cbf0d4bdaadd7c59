"""Does the memory help a model, by how much, and whom does it harm? See `__main__.py`."""
