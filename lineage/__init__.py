"""Names for content, and the record of how it was made. Imports nothing of ours."""
