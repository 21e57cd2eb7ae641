"""SageMaker Pipelines: settings and lowering."""
