"""Kubeflow Pipelines: settings and lowering."""
