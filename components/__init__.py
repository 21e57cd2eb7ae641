"""One step of the pipeline per file; a typed function is its contract."""

from lineage import code

code.pin()  # what is loaded from here on is what cache keys name
