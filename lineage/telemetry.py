"""Third-party libraries tell nobody what is done here. Say so before one of them is imported."""

import os

OFF = {
    "DO_NOT_TRACK": "1",  # Evidently, and whoever else heeds it
    "GX_ANALYTICS_ENABLED": "false",
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",  # not telemetry, but as unasked for
}


def off() -> None:
    """Turn all of it off, whatever the user's settings say: a clinic's network is no place."""
    os.environ.update(OFF)
