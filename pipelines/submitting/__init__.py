"""Start a run on a cluster, follow it, and tell how it ended: the same for every engine."""
