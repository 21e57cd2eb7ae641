"""Fitting a MONAI network and leaving it in files that hold no code."""
