"""Identities stay outside: rules, cleaning, and the check of what was written."""
