"""De-identified data sets, and how they come about."""
