"""The SDK without an account: it looks for no region, credentials or role, and asks AWS nothing."""

import gc
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def offline() -> Iterator[None]:
    """Let the SDK neither look for a region, credentials and roles, nor set up our logging.

    No garbage is collected meanwhile: an import makes a million objects that all stay, and walking
    them again and again takes a sixth of the time.
    """
    collects = gc.isenabled()
    gc.disable()
    root = logging.getLogger()
    level, handlers, environment = root.level, root.handlers[:], dict(os.environ)
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")  # imports fail without any
    os.environ |= {"AWS_EC2_METADATA_DISABLED": "true", "SAGEMAKER_VALIDATE_ROLE": "false"}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Running within a PipelineSession")
            yield
    finally:
        os.environ.clear()
        os.environ |= environment
        root.setLevel(level)
        root.handlers[:] = handlers
        if collects:
            gc.enable()


with offline():
    from sagemaker.core.config.config_manager import SageMakerConfig
    from sagemaker.core.workflow.pipeline_context import PipelineSession
    from sagemaker.mlops.workflow import steps as sdk_steps


class _NoAccount:
    """Stands for boto3's session and for each of its clients; it has no operation at all."""

    def __init__(self, region: str):
        self.region_name = region

    def client(self, *_: Any, **__: Any) -> "_NoAccount":
        """Whatever the service."""
        return self

    resource = client


class _OfflineSession(PipelineSession):  # type: ignore[misc]  # the SDK has no types
    """A session that is asked for nothing but names."""

    def default_bucket(self) -> str:
        """The bucket of the settings; the SDK's own would look whether it exists."""
        return str(self._default_bucket_name_override)


def offline_session(region: str, bucket: str) -> PipelineSession:
    """A session for lowering; whatever needs an account fails at once."""
    return _OfflineSession(
        boto_session=_NoAccount(region),
        default_bucket=bucket,
        sagemaker_config={
            "SchemaVersion": "1.0",
            "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}},
        },
    )


@contextmanager
def quick() -> Iterator[None]:
    """Spare the SDK work that it repeats for each step; it takes seconds for a whole pipeline.

    It checks its own config again for each default that it looks up: once is enough. And each
    ProcessingStep makes a local session with four clients, only to ask for a method's name: the
    class has it as well.
    """
    check, local = SageMakerConfig.validate_sagemaker_config, sdk_steps.LocalSagemakerClient
    seen = set()

    def once(config: dict[str, Any] | None = None) -> None:
        text = json.dumps(config, sort_keys=True)
        if text not in seen:
            check(config)
            seen.add(text)

    SageMakerConfig.validate_sagemaker_config = staticmethod(once)
    sdk_steps.LocalSagemakerClient = lambda: local
    try:
        yield
    finally:
        SageMakerConfig.validate_sagemaker_config = staticmethod(check)
        sdk_steps.LocalSagemakerClient = local
