"""Names for content, the record of how it was made, and the few things that all others stand on.

Imports nothing of ours.
"""
