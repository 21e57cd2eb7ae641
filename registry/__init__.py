"""What was made, from what, and who allowed it."""
