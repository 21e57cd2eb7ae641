"""Addresses of scans that lie elsewhere, told apart by their schemes."""

from imaging.incoming.dicomweb import DICOMWEB, DicomWeb
from imaging.incoming.mirror import Origin
from imaging.incoming.s3 import S3
from lineage.errors import BadInput

SCHEMES = ("s3", *DICOMWEB)


def is_remote(uri: str) -> bool:
    """Whether it names a place on another machine, one that we can read or not."""
    return "://" in uri


def open_origin(address: str) -> Origin:
    """The reader of an address; nothing is asked of it yet.

    Raises:
        BadInput: No scans are read from such an address.
    """
    scheme, separator, _ = address.partition("://")
    if scheme == "s3":
        return S3(address)
    if scheme in DICOMWEB:
        return DicomWeb(address)
    told = f"{scheme}://…" if separator else repr(address)
    known = ", ".join(f"{known}://…" for known in SCHEMES)
    raise BadInput(f"{told} is no address that scans are read from; there are {known}")


def require_nobody(address: str) -> None:
    """Refuse an address that says who somebody is: settings and records of runs hold it.

    Raises:
        BadInput: Its query does.
    """
    origin = open_origin(address)
    if isinstance(origin, DicomWeb) and (keys := origin.identifying()):
        raise BadInput(
            f"the query's {', '.join(keys)} would stand in records of runs, where no identity may; "
            "`lightbox fetch ADDRESS FOLDER` fetches, and keeps no record"
        )
