"""One step of the pipeline per file; a typed function is its contract."""
