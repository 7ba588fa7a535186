"""Data sets of the Hugging Face hub: one commit is pinned, and its files are read like local ones."""
