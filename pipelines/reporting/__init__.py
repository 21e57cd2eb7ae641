"""The page of a run: its sections, what they are made of, and the drawing of charts."""
