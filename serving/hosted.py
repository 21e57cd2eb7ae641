"""Serving where a platform keeps the door: SageMaker hosting runs `<image> serve`.

    /opt/ml/model    a model directory, as the platform unpacks it from model.tar.gz
    0.0.0.0:8080     GET /ping and POST /invocations, as in `serving.app`, and nothing else

NOBODY IS ASKED WHO THEY ARE HERE. The platform signs callers in (IAM; on Kubernetes the mesh) and
is the only one that reaches the container's network; there is no token. Never publish this port by
other means: `serving.app` is for that.

Set from outside, by whoever creates the endpoint:

    LIGHTBOX_MODEL_DIGEST    the model's tree digest; nothing is opened that has another
    LIGHTBOX_CAPTURE_FOLDER  where to append one line of numbers for each request; by default none
                             is kept, as SageMaker's data capture keeps the answers. Let that
                             capture the output only: what comes in is a patient's image.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from lineage import telemetry
from lineage.errors import BadInput
from serving.app import Door, Service, Wanted, create_app, guard_decoders, http_server, listen
from serving.capture import Capture, Record

VARIANT = "hosted"  # the platform has the variants; each of its containers serves one model


def main(argv: Sequence[str] | None = None) -> None:
    """`python -m components serve`; a model that cannot be served ends it with exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m components serve", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--model", type=Path, default=Path("/opt/ml/model"), help="default: %(default)s"
    )
    args = parser.parse_args(argv)
    logging.basicConfig(format="%(asctime)s %(name)s %(message)s", level=logging.WARNING)
    # Python as process 1 would not hear it while the model loads, and nothing would be cleaned up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    telemetry.off()
    guard_decoders()
    try:
        _serve(args.model)
    except BadInput as error:
        print(error, file=sys.stderr)
        sys.exit(2)


def _serve(model: Path) -> None:
    wanted = _wanted(model)
    # A platform that puts several containers on one machine gives each a port.
    port = int(os.environ.get("SAGEMAKER_BIND_TO_PORT", 8080))
    with TemporaryDirectory(prefix="lightbox-") as folder:
        service = Service(Path(folder), _capture())
        service.put(VARIANT, wanted)
        door = Door(create_app(service, stop=None), token=None)
        http_server(door).run(sockets=[listen("0.0.0.0", port)])  # noqa: S104  see above


def _wanted(directory: Path) -> Wanted:
    digest = os.environ.get("LIGHTBOX_MODEL_DIGEST", "")
    try:
        return Wanted(directory=directory, digest=digest, version=digest[:12], share=1)
    except ValidationError:
        raise BadInput(
            "LIGHTBOX_MODEL_DIGEST must be the model's digest, 64 hex digits, as the registry "
            "records it; without it this container cannot tell one model from another"
        ) from None


def _capture() -> Callable[[Record], None]:
    folder = os.environ.get("LIGHTBOX_CAPTURE_FOLDER")
    return Capture(Path(folder)).write if folder else lambda record: None
