"""An archive that speaks DICOMweb: QIDO-RS finds instances, WADO-RS hands them over (PS3.18).

Asked by httpx instance by instance, so that an answer goes to the disk within a bound, and one
that broke off is told from a whole one: clients that hold a study in memory promise neither.
"""

import json
import mmap
import os
import re
import ssl
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from email.message import Message
from email.utils import parsedate_to_datetime
from functools import cached_property
from hashlib import sha256
from threading import Lock
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from imaging.incoming.mirror import Again, Listing, Remote
from lineage.errors import BadInput, StepFailed

if TYPE_CHECKING:
    import httpx

DICOMWEB = ("dicomweb+https", "dicomweb+http")
PAGE = 1000  # instances asked for at once; a server may give fewer
MAX_PAGE_BYTES = 64 * 2**20
MAX_INSTANCE_BYTES = 512 * 2**20
MAX_HEAD_BYTES = 2**16  # of a part, before its content
CHUNK_BYTES = 2**18
MAY_PASS = (408, 425, 429, 500, 502, 503, 504)
STUDY, SERIES, INSTANCE, COUNT = "0020000D", "0020000E", "00080018", "00201209"
OF_INSTANCES = {  # keys that choose within a series
    *("SOPClassUID", "SOPInstanceUID", "InstanceNumber", "NumberOfFrames", "Rows", "Columns"),
    *("00080016", "00080018", "00200013", "00280008", "00280010", "00280011"),
}
OURS = {"limit", "offset", "includefield"}
# What says who somebody is: an address stands in settings and in the records of runs.
IDENTIFYING = {
    *("PatientName", "PatientID", "OtherPatientIDs", "PatientBirthDate", "AccessionNumber"),
    *("00100010", "00100020", "00101000", "00100030", "00080050"),
}
LOOPBACK = ("localhost", "127.0.0.1", "::1")
VARIABLE = "LIGHTBOX_DICOMWEB_"
WAY_IN = (
    f"{VARIABLE}TOKEN, {VARIABLE}USER with {VARIABLE}PASSWORD, or {VARIABLE}TOKEN_URL with "
    f"{VARIABLE}CLIENT_ID and {VARIABLE}CLIENT_SECRET"
)


class DicomWeb:
    """What an archive finds at `dicomweb+https://HOST/ROOT[/studies/UID[/series/UID]][?QUERY]`.

    QUERY is QIDO-RS's, such as `StudyDate=20240101-&Modality=CR`. Who asks is said in environment
    variables, never in the address; `SSL_CERT_FILE` names another certificate authority.
    """

    threads = 4  # an archive serves a hospital besides us

    def __init__(self, address: str) -> None:
        url = urlsplit(address.removeprefix("dicomweb+"))
        # The query may say who somebody is, so messages do without it.
        self.place = url.netloc.rpartition("@")[2] + url.path
        if "@" in url.netloc:
            raise BadInput(f"{self.place}: a password in an address is read by many; use {WAY_IN}")
        if not url.hostname or url.fragment:
            raise BadInput("expected dicomweb+https://HOST/ROOT?QUERY")
        plain = url.scheme == "http" and url.hostname not in LOOPBACK
        if plain and os.environ.get(f"{VARIABLE}PLAIN") != "1":
            raise BadInput(
                f"{self.place}: http sends scans and passwords for all to read; use "
                f"dicomweb+https, or say {VARIABLE}PLAIN=1 where the network itself is closed"
            )
        self.searched = f"{url.scheme}://{url.netloc}{url.path.rstrip('/')}"
        self.root = re.sub(r"/studies/[0-9.]+(/series/[0-9.]+)?$", "", self.searched)
        self.query = parse_qsl(url.query, keep_blank_values=True)
        if ours := sorted(OURS & {key for key, _ in self.query}):
            raise BadInput(f"{self.place}: {', '.join(ours)} is for us to say; leave it out")
        for number, (key, _) in enumerate(self.query, 1):
            # An archive passes over a key that it does not know, and hands out all that it has.
            if key != "fuzzymatching" and not all(map(_is_attribute, key.split("."))):
                raise BadInput(
                    f"{self.place}: key {number} of the query is no attribute of DICOM, such as "
                    f"StudyDate or 00080020{_near(key)}"
                )

    def identifying(self) -> list[str]:
        """Keys of the query whose values say who somebody is."""
        return sorted(IDENTIFYING & {part for key, _ in self.query for part in key.split(".")})

    def listing(self) -> Listing:
        """Every instance that the query finds, held against what the archive counts by series.

        An archive may cut off its answers without a word: what a series lacks is asked for alone.

        Raises:
            StepFailed: It counts more than it lists.
        """
        found = self._instances(self.searched)
        listed = Counter(series for _, series in found.values())
        within = OF_INSTANCES & {key for key, _ in self.query}
        for study, series, count in self._series():
            if listed[series] < count:
                found |= self._instances(f"{self.root}/studies/{study}/series/{series}")
                listed[series] = sum(of == series for _, of in found.values())
            if listed[series] < count and not within:
                raise StepFailed(
                    f"{self.place}: the archive counts {count} instances in a series, and lists "
                    f"{listed[series]}; ask its keeper for the limit of its answers"
                )
        if not found:
            raise BadInput(f"{self.place}: the archive finds no instance of that query")
        return Listing(
            [
                Remote(
                    name=f"{sha256(uid.encode()).hexdigest()[:32]}.dcm",
                    place=f"{self.root}/studies/{study}/series/{series}/instances/{uid}",
                )
                for uid, (study, series) in found.items()
            ]
        )

    def _instances(self, below: str) -> dict[str, tuple[str, str]]:
        """Study and series of each instance."""
        found = {}
        for entry in self._search(f"{below}/instances", self.query, INSTANCE, (STUDY, SERIES)):
            study, series, instance = (_uid(entry, tag) for tag in (STUDY, SERIES, INSTANCE))
            found[instance] = (study, series)
        return found

    def _series(self) -> Iterator[tuple[str, str, int]]:
        """Study, UID and number of instances of each series; 1 where the archive does not count."""
        searched, _, only = self.searched.partition("/series/")
        query = [(key, value) for key, value in self.query if key not in OF_INSTANCES]
        query += [("SeriesInstanceUID", only)] if only else []
        for entry in self._search(f"{searched}/series", query, SERIES, (STUDY, COUNT)):
            counted = entry.get(COUNT, {}).get("Value") or [1]
            yield _uid(entry, STUDY), _uid(entry, SERIES), int(counted[0])

    def _search(
        self, url: str, query: list[tuple[str, str]], key: str, fields: tuple[str, ...]
    ) -> Iterator[Any]:
        """Ask page by page until an empty one comes, however many the archive gives at once."""
        seen: set[str] = set()
        asked = [*query, *(("includefield", field) for field in fields), ("limit", str(PAGE))]
        offset, held_back = 0, False
        while True:
            page, more = self._page(url, [*asked, ("offset", str(offset))])
            if not page and held_back:
                raise StepFailed(f"{self.place}: the archive holds back a part of its answer")
            if not page:
                return
            offset, held_back = offset + len(page), more
            seen |= {_uid(entry, key) for entry in page}
            if len(seen) < offset:  # the same one twice: what is missing instead?
                raise Again(
                    f"{self.place}: pages overlap, as if the archive changed while it was listed, "
                    "or took no notice of the offset"
                )
            yield from page

    def _page(self, url: str, query: Sequence[tuple[str, str]]) -> tuple[list[Any], bool]:
        """One page of QIDO-RS, and whether the archive says that it is not all (warning 299)."""
        with self._asked(url, "application/dicom+json", query) as answer:
            body = bytearray()
            for chunk in answer.iter_bytes(CHUNK_BYTES):
                body += chunk
                if len(body) > MAX_PAGE_BYTES:
                    raise StepFailed(f"{self.place}: {PAGE} results take more than 64 MiB")
            more = answer.headers.get("warning", "").startswith("299")
        try:
            page = json.loads(body) if body else []  # 204: there is none
        except (ValueError, RecursionError):
            page = None
        if not isinstance(page, list):
            raise BadInput(f"{self.place}: no DICOM JSON comes; is this the DICOMweb root?")
        return page, more

    def fetch(self, remote: Remote, part: IO[bytes]) -> None:
        """Write one instance as the archive keeps it, in its own transfer syntax."""
        part.seek(0)
        part.truncate()
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        with self._asked(remote.place, accept) as answer:
            boundary = _boundary(answer.headers.get("content-type", ""))
            _write_only_part(answer.iter_bytes(CHUNK_BYTES), boundary, part)
        part.seek(0)
        uid = remote.place.rpartition("/")[2]
        if _instance_uid(part.read(MAX_HEAD_BYTES)) != uid:
            raise StepFailed(f"{self.place}: another instance came than was asked for")

    @contextmanager
    def _asked(
        self, url: str, accept: str, query: Sequence[tuple[str, str]] = ()
    ) -> Iterator["httpx.Response"]:
        """An answer whose body can be read, or what is wrong."""
        import httpx

        try:
            with self._client.stream(
                "GET", url, headers={"accept": accept}, params=tuple(query)
            ) as answer:
                self._require_good(answer)
                yield answer
        except httpx.TransportError as error:
            if _is_of_certificate(error):
                raise BadInput(
                    f"{self.place}: its certificate is signed by none that is trusted here; "
                    "SSL_CERT_FILE names the file of the certificate authority that is"
                ) from None
            why = f" ({error})" if isinstance(error, httpx.ConnectError) else ""
            raise Again(f"{self.place}: {type(error).__name__}{why}") from None
        except httpx.HTTPError as error:
            raise StepFailed(f"{self.place}: {type(error).__name__}") from None

    def _require_good(self, answer: "httpx.Response") -> None:
        status = answer.status_code
        if status in MAY_PASS:
            raise Again(f"{self.place} answers {status}", _seconds(answer.headers))
        if status in (401, 403):
            raise BadInput(f"{self.place} answers {status}: say who asks by {WAY_IN}")
        if status in (400, 404, 406, 410):
            raise BadInput(
                f"{self.place} answers {status}: see that this is the DICOMweb root, and that the "
                "archive knows the keys of the query"
            )
        if status not in (200, 204, 206):
            raise StepFailed(f"{self.place} answers {status}")

    @cached_property
    def _client(self) -> "httpx.Client":
        import httpx

        # Never led elsewhere: the password would go along.
        return httpx.Client(
            auth=_auth(), timeout=httpx.Timeout(60, connect=10), follow_redirects=False
        )


def _is_attribute(name: str) -> bool:
    from pydicom.datadict import tag_for_keyword

    return tag_for_keyword(name) is not None or bool(re.fullmatch("[0-9A-Fa-f]{8}", name))


def _near(name: str) -> str:
    """The way out of a misspelt keyword; the name itself is not repeated, it may be anything."""
    from pydicom.datadict import keyword_dict

    known = {keyword.lower(): keyword for keyword in keyword_dict}
    close = get_close_matches(name.lower(), known, n=1, cutoff=0.8)
    return f"; did you mean {known[close[0]]}?" if close else ""


def _auth() -> "Callable[[httpx.Request], httpx.Request] | httpx.Auth | None":
    """Who asks, as the environment says."""
    import httpx

    given = {
        name: os.environ.get(f"{VARIABLE}{name}", "")
        for name in ("TOKEN", "USER", "PASSWORD", "TOKEN_URL", "CLIENT_ID", "CLIENT_SECRET")
    }
    if given["TOKEN_URL"]:
        url = urlsplit(given["TOKEN_URL"])
        if url.scheme != "https" and url.hostname not in LOOPBACK:
            raise BadInput(f"{VARIABLE}TOKEN_URL: a secret goes there, so it must be https")
        return _ClientCredentials(given["TOKEN_URL"], given["CLIENT_ID"], given["CLIENT_SECRET"])
    if given["TOKEN"]:
        return _bearer(given["TOKEN"])
    return httpx.BasicAuth(given["USER"], given["PASSWORD"]) if given["USER"] else None


def _bearer(token: str) -> "Callable[[httpx.Request], httpx.Request]":
    def sign(request: "httpx.Request") -> "httpx.Request":
        request.headers["authorization"] = f"Bearer {token}"
        return request

    return sign


class _ClientCredentials:
    """A token for a secret (RFC 6749 4.4), taken anew before it expires."""

    def __init__(self, url: str, client_id: str, client_secret: str) -> None:
        self._url, self._client = url, (client_id, client_secret)
        self._token, self._until, self._lock = "", 0.0, Lock()

    def __call__(self, request: "httpx.Request") -> "httpx.Request":
        with self._lock:
            if time.monotonic() >= self._until:
                self._renew()
            return _bearer(self._token)(request)

    def _renew(self) -> None:
        import httpx

        answer = httpx.post(
            self._url, data={"grant_type": "client_credentials"}, auth=self._client, timeout=30
        )
        if answer.status_code in MAY_PASS:
            raise Again(f"the token's server answers {answer.status_code}")
        try:
            told = answer.json() if answer.status_code == 200 else {}
            self._token = str(told["access_token"])
            self._until = time.monotonic() + float(told.get("expires_in", 300)) - 30
        except (ValueError, KeyError, TypeError):
            raise BadInput(
                f"{VARIABLE}TOKEN_URL answers {answer.status_code} without a token; see "
                f"{VARIABLE}CLIENT_ID and {VARIABLE}CLIENT_SECRET"
            ) from None


def _uid(entry: Any, tag: str) -> str:
    """A UID out of DICOM JSON (PS3.18 F.2); it becomes part of a URL."""
    try:
        uid = entry[tag]["Value"][0]
    except (LookupError, TypeError):
        uid = None
    if not isinstance(uid, str) or not re.fullmatch("[0-9.]{1,64}", uid):
        raise StepFailed("the archive lists an instance without the UIDs of its study and series")
    return uid


def _boundary(content_type: str) -> bytes:
    message = Message()
    message["content-type"] = content_type
    boundary = message.get_boundary()
    if message.get_content_type() != "multipart/related" or not boundary:
        raise StepFailed("the archive answers with something else than multipart/related")
    return boundary.encode()


def _write_only_part(chunks: Iterable[bytes], boundary: bytes, part: IO[bytes]) -> None:
    """Unpack multipart/related with one part (RFC 2046 5.1.1).

    Only its closing delimiter tells a whole answer from one that broke off.
    """
    head: bytes | None = b""
    size = 0
    for chunk in chunks:
        if head is not None:
            head += chunk
            _, found, chunk = head.partition(b"\r\n\r\n")
            if not found:
                if len(head) > MAX_HEAD_BYTES:
                    raise StepFailed("the archive answers with something else than an instance")
                continue
            head = None
        part.write(chunk)
        size += len(chunk)
        if size > MAX_INSTANCE_BYTES:
            raise StepFailed(
                f"an instance is larger than {MAX_INSTANCE_BYTES // 2**20} MiB; leave it out by "
                "the query"
            )
    part.flush()
    if not size:
        raise Again("an answer broke off")
    with mmap.mmap(part.fileno(), 0, access=mmap.ACCESS_READ) as content:
        end = content.find(b"\r\n--" + boundary)
        closing = content[end + 4 + len(boundary) :][:2] if end >= 0 else b""
    if closing == b"\r\n":
        raise StepFailed("the archive answers with several parts where one instance was asked for")
    if closing != b"--":
        raise Again("an answer broke off")
    part.truncate(end)


def _instance_uid(head: bytes) -> str | None:
    """Media Storage SOP Instance UID out of a file's meta information (PS3.10 7.1)."""
    found = re.search(rb"\x02\x00\x03\x00UI(..)", head, re.DOTALL)
    if not found:
        return None
    length = int.from_bytes(found[1], "little")
    return head[found.end() : found.end() + length].rstrip(b"\0 ").decode("ascii", "replace")


def _seconds(headers: "httpx.Headers") -> float | None:
    """Retry-After, in seconds or as a date (RFC 9110 10.2.3)."""
    told = headers.get("retry-after", "")
    if told.isdigit():
        return float(told)
    try:
        return max(0.0, parsedate_to_datetime(told).timestamp() - time.time())
    except ValueError:
        return None


def _is_of_certificate(error: BaseException | None) -> bool:
    while error:
        if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
