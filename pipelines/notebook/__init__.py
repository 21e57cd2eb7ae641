"""The same from Python: runs as objects that show themselves, in a prompt or in a notebook."""
