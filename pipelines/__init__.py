"""What runs, and where. Start with `model_lifecycle.py`."""
