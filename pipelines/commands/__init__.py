"""The verbs of the `lightbox` command, one file per noun; `pipelines.cli` gathers them."""
