"""The places a pipeline can run. Each module reads the same graph; none share a base class."""
