"""Bytes that nobody vouches for become pixels: bounds first, then the standard's rules."""
