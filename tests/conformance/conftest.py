"""The container engine, and the image that all containers here are made of."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import boto3
import httpx
import pytest
from engines import build_image, container_engine, free_port
from sagemaker_locally import network

from pipelines.backends.sagemaker.settings import Instance, SageMakerSettings

ALLOWED = "LIGHTBOX_WITHOUT_CONTAINERS"


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A container engine. Where none is to be had, CI fails, unless told that it knows."""
    try:
        if os.geteuid() != 0:  # volumes are handed to the containers' user
            raise RuntimeError("only root may give a volume to the user of the containers")
        with container_engine(tmp_path_factory.mktemp("engine")):
            yield
    except RuntimeError as error:
        missing = f"{error}; without one, nothing shows that the engines mean the same"
        if os.environ.get("CI") == "true" and not os.environ.get(ALLOWED):
            pytest.fail(f"{missing}. Install docker.io and docker-compose, or set {ALLOWED}=1")
        pytest.skip(missing)


@pytest.fixture(scope="session")
def image(engine: None) -> Iterator[str]:
    """Its id. The SDKs leave their containers behind; they go when all is done."""
    made = build_image()
    yield made
    listed = ["docker", "ps", "--all", "--quiet", "--filter", f"ancestor={made}"]
    left = subprocess.run(listed, capture_output=True, text=True).stdout.split()
    subprocess.run(["docker", "rm", "--force", *left], capture_output=True)


@pytest.fixture(scope="session")
def address(engine: None, image: str) -> Iterator[str]:
    """Where containers of SageMaker's local mode find this machine."""
    with network() as gateway:
        yield gateway


@pytest.fixture(scope="session")
def account(address: str) -> Iterator[str]:
    """moto's server where the containers reach it: on the bridge that leads nowhere else."""
    port = free_port(address)
    command = [sys.executable, "-m", "moto.server", "-H", address, "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://{address}:{port}"
    try:
        for _ in range(200):
            try:
                httpx.get(f"{url}/moto-api/").raise_for_status()
                break
            except httpx.TransportError:
                time.sleep(0.1)
        else:
            pytest.fail(f"moto's server did not answer at {url}")
        yield url
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture
def cloud(account: str, monkeypatch: pytest.MonkeyPatch) -> SageMakerSettings:
    """An empty account, with what the settings name; images are still to be set."""
    variables = {
        "AWS_ENDPOINT_URL": account,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    httpx.post(f"{account}/moto-api/reset").raise_for_status()
    boto3.DEFAULT_SESSION = None
    boto3.client("s3").create_bucket(Bucket="lightbox")
    boto3.client("sagemaker").create_model_package_group(ModelPackageGroupName="lightbox")
    secret = boto3.client("secretsmanager").create_secret(Name="entry", SecretString="ab" * 32)
    return SageMakerSettings(
        image="",
        serving_image="",
        role="arn:aws:iam::123456789012:role/lightbox",
        region="us-east-1",
        bucket="lightbox",
        kms_key="arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555",
        subnets=["subnet-0123456789abcdef0"],
        security_groups=["sg-0123456789abcdef0"],
        tracking_uri="http://127.0.0.1:5000",
        model_package_group="lightbox",
        instances=[Instance(type="ml.m5.4xlarge", cpu=16, memory_gib=64)],
        secrets={"entry.key": secret["ARN"]},
        environment={"AWS_ENDPOINT_URL": account},
    )
