"""Senders are pynetdicom, and dcmtk where it is installed; nothing is played."""

import os
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pydicom
import pytest
import senders
from pydicom.uid import (
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AE, AllStoragePresentationContexts
from pynetdicom.sop_class import CTImageStorage, Verification

from imaging.incoming.receiver import Listener, Received, Receiver, readable_syntaxes, tls_context
from lineage.errors import BadInput

Start = Callable[..., tuple[Receiver, list[Received]]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Listeners on free ports, ended with the test."""
    running = []

    def begin(**settings) -> tuple[Receiver, list[Received]]:
        heard: list[Received] = []
        receiver = Receiver(tmp_path / "scans", Listener(port=0, **settings), heard.append)
        running.append(receiver)
        return receiver.__enter__(), heard

    yield begin
    for receiver in running:
        with suppress(ValueError):  # the test has ended it
            receiver.__exit__(None, None, None)


def associated(port: int, *contexts: tuple[str, str], called: str = "ANY-SCP", **how):
    entity = AE(how.pop("calling", "SENDER"))
    entity.dimse_timeout = 15
    for abstract, syntax in contexts or [(Verification, ImplicitVRLittleEndian)]:
        entity.add_requested_context(abstract, syntax)
    return senders.associated(entity, port, ae_title=called, **how)


def stored(folder: Path) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def test_what_is_sent_is_stored_as_it_was_sent(start, phantoms, sent, tmp_path) -> None:
    receiver, heard = start()
    assert sent(receiver.port, phantoms) == [0] * len(phantoms)
    before = {d.SOPInstanceUID: d for d in map(pydicom.dcmread, phantoms)}
    after = {d.SOPInstanceUID: d for d in stored(receiver.folder)}
    assert before == after
    for uid, dataset in after.items():
        assert dataset.file_meta.TransferSyntaxUID == before[uid].file_meta.TransferSyntaxUID
        assert dataset.PixelData == before[uid].PixelData
    assert {received.outcome for received in heard} == {"stored"}
    names = " ".join(path.name for path in receiver.folder.iterdir())
    assert not any(str(uid) in names or d.PatientID in names for uid, d in before.items())
    assert all(path.stat().st_mode & 0o077 == 0 for path in receiver.folder.iterdir())


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
    ],
    ids=lambda syntax: syntax.name,
)
def test_each_way_to_encode_a_data_set(start, dicom_dataset, tmp_path, syntax) -> None:
    receiver, _ = start()
    given = dicom_dataset(syntax=syntax)
    given.save_as(tmp_path / "one", enforce_file_format=True)
    given = pydicom.dcmread(tmp_path / "one")
    association = associated(receiver.port, (given.SOPClassUID, syntax))
    assert association.send_c_store(given).Status == 0
    association.release()
    (kept,) = stored(receiver.folder)
    assert kept == given
    assert kept.file_meta.TransferSyntaxUID == syntax


def test_every_kind_of_image_may_be_sent_and_video_not(start) -> None:
    receiver, _ = start()
    assert len(AllStoragePresentationContexts) > 128
    for first in (0, 128):
        contexts = AllStoragePresentationContexts[first : first + 128]
        asked = [(c.abstract_syntax, ExplicitVRLittleEndian) for c in contexts]
        association = associated(receiver.port, *asked)
        assert len(association.accepted_contexts) == len(asked)
        association.release()
    syntaxes = readable_syntaxes()
    assert len(syntaxes) == len(set(syntaxes)) >= 14
    association = associated(
        receiver.port, (CTImageStorage, ExplicitVRLittleEndian), (CTImageStorage, MPEG2MPML)
    )
    assert len(association.accepted_contexts) == 1
    association.release()


def test_an_echo_is_answered(start) -> None:
    receiver, heard = start()
    association = associated(receiver.port)
    assert association.send_c_echo().Status == 0
    association.release()
    assert heard == []


def test_the_same_again_is_a_success_and_another_is_kept_beside(
    start, phantoms, sent, tmp_path
) -> None:
    receiver, heard = start()
    sent(receiver.port, phantoms[:1])
    (first,) = receiver.folder.iterdir()
    look = first.stat()
    changed = pydicom.dcmread(phantoms[0])
    changed.PatientAge = "001Y"
    changed.save_as(tmp_path / "changed", enforce_file_format=True)
    assert sent(receiver.port, [phantoms[0], tmp_path / "changed"]) == [0, 0]
    assert [received.outcome for received in heard] == ["stored", "known", "stored"]
    files = sorted(receiver.folder.iterdir())
    assert len(files) == 2
    assert {file.name[:32] for file in files} == {first.name[:32]}
    assert first.stat() == look
    assert {d.PatientAge for d in stored(receiver.folder)} == {
        pydicom.dcmread(phantoms[0]).PatientAge,
        "001Y",
    }


def test_a_data_set_that_is_not_what_the_request_says_is_refused(start, dicom_dataset) -> None:
    receiver, heard = start()
    given = dicom_dataset()
    contexts = [
        (given.SOPClassUID, ExplicitVRLittleEndian),
        (CTImageStorage, ExplicitVRLittleEndian),
    ]
    association = associated(receiver.port, *contexts)
    send = association.dimse.send_msg

    def under_another_name(primitive, context_id):
        primitive.AffectedSOPInstanceUID = "1.2.3"
        send(primitive, context_id)

    association.dimse.send_msg = under_another_name
    assert association.send_c_store(given).Status == 0xA900

    def without_beginning(primitive, context_id):
        primitive.DataSet.seek(0)
        primitive.DataSet = type(primitive.DataSet)(primitive.DataSet.read()[200:])
        send(primitive, context_id)

    association.dimse.send_msg = without_beginning
    assert association.send_c_store(given).Status == 0xC000
    association.release()
    assert list(receiver.folder.iterdir()) == []
    assert [received.outcome for received in heard] == ["refused", "refused"]


def test_who_calls_and_who_is_called(start) -> None:
    receiver, _ = start(allowed=("CT1", "MR1"), require_called=True, ae_title="HOUSE")
    for calling, called, welcome in (
        ("CT1", "HOUSE", True),
        ("MR1", "HOUSE", True),
        ("US1", "HOUSE", False),
        ("CT1", "OTHER", False),
    ):
        association = associated(receiver.port, called=called, calling=calling)
        assert association.is_established is welcome
        assert association.is_rejected is not welcome
        association.release()


def test_more_than_may_come_at_once_are_turned_away(start) -> None:
    receiver, _ = start(max_associations=2)
    two = [associated(receiver.port) for _ in range(2)]
    third = associated(receiver.port)
    assert third.is_rejected
    for association in two:
        association.release()


def test_too_large_an_object_ends_the_association_and_leaves_nothing(
    start, dicom_dataset, sent, tmp_path
) -> None:
    receiver, heard = start(max_object_mib=1)
    large = dicom_dataset(Rows=1024, Columns=1024, PixelData=b"\0" * 2**21)
    association = associated(receiver.port, (large.SOPClassUID, ExplicitVRLittleEndian))
    assert association.send_c_store(large).get("Status") is None  # no answer, so no success
    until = time.monotonic() + 20
    while not association.is_aborted and time.monotonic() < until:
        time.sleep(0.05)
    assert association.is_aborted
    assert list(receiver.folder.iterdir()) == []
    assert {received.outcome for received in heard} == {"refused"}
    association = associated(receiver.port)
    assert association.is_established
    association.release()


@pytest.mark.parametrize("kind", [0x01, 0x04])
def test_a_unit_that_announces_gigabytes_is_not_waited_for(start, kind) -> None:
    receiver, _ = start()
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=20) as connection:
        connection.sendall(struct.pack(">BBL", kind, 0, 2**32 - 1) + b"\0" * 1000)
        assert connection.recv(100) in (b"", b"\x07\0\0\0\0\x04\0\0\0\0")  # closed, or aborted


def test_a_unit_whose_rest_never_comes_is_given_up(start) -> None:
    receiver, _ = start(timeout_s=1)
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=30) as connection:
        connection.sendall(struct.pack(">BBL", 1, 0, 200) + b"\0" * 100)
        assert connection.recv(100) == b""


def test_what_is_no_dicom_at_all_harms_nobody(start, phantoms, sent) -> None:
    receiver, _ = start()
    for noise in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(5000), b"\x01\0\0\0\0\x04abcd"):
        with socket.create_connection(("127.0.0.1", receiver.port), timeout=20) as connection:
            connection.sendall(noise)
    assert sent(receiver.port, phantoms[:1]) == [0]


def test_silence_ends_an_association(start) -> None:
    receiver, _ = start(timeout_s=1)
    association = associated(receiver.port)
    until = time.monotonic() + 30
    while receiver._server.active_associations and time.monotonic() < until:
        time.sleep(0.1)
    assert not receiver._server.active_associations
    association.abort()


def test_a_slow_disk_is_not_a_silent_sender(start, phantoms, sent) -> None:
    receiver, _ = start(timeout_s=1)
    keep = receiver._keep

    def slowly(*args):
        time.sleep(1.5)
        return keep(*args)

    receiver._keep = slowly
    assert sent(receiver.port, phantoms[:3]) == [0, 0, 0]


def test_many_senders_at_once(start, phantoms, sent) -> None:
    receiver, heard = start()
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.extend(sent(receiver.port, phantoms[:20])))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [0] * 80
    assert len(list(receiver.folder.iterdir())) == 20
    assert len(heard) == 80


def test_what_is_in_flight_ends_well_when_the_listener_does(start, phantoms, tmp_path) -> None:
    receiver, heard = start()
    given = pydicom.dcmread(phantoms[0])
    association = associated(receiver.port, (given.SOPClassUID, given.file_meta.TransferSyntaxUID))
    idle = associated(receiver.port)
    halfway, go_on = threading.Event(), threading.Event()
    keep = receiver._keep

    def slowly(*args):
        halfway.set()
        go_on.wait(30)
        return keep(*args)

    receiver._keep = slowly
    answers: list[int] = []
    sender = threading.Thread(
        target=lambda: answers.append(association.send_c_store(given).get("Status", -1))
    )
    sender.start()
    assert halfway.wait(30)
    ending = threading.Thread(target=receiver.__exit__, args=(None, None, None))
    ending.start()
    until = time.monotonic() + 20
    while not idle.is_aborted and time.monotonic() < until:
        time.sleep(0.05)
    assert idle.is_aborted
    ending.join(3)
    assert ending.is_alive()  # it waits
    go_on.set()
    sender.join(30)
    ending.join(30)
    assert answers == [0]
    assert [received.outcome for received in heard] == ["stored"]
    assert len(list(receiver.folder.iterdir())) == 1
    assert not (tmp_path / ".scans.receiving").exists()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", association.acceptor.port), timeout=5)


def test_tls_and_certificates_of_callers(start, certificate) -> None:
    pem, key = certificate
    receiver, _ = start(tls=tls_context(pem, key, pem))
    context = ssl.create_default_context(cafile=str(pem))
    assert not associated(receiver.port, tls_args=(context, "localhost")).is_established
    assert not associated(receiver.port).is_established
    context.load_cert_chain(pem, key)
    association = associated(receiver.port, tls_args=(context, "localhost"))
    assert association.send_c_echo().Status == 0
    association.release()
    with pytest.raises(BadInput, match="the certificate, its key"):
        tls_context(key, pem, None)


@pytest.mark.parametrize("certificate", [-1], indirect=True)
def test_an_expired_certificate_is_told_before_callers_turn_away(certificate) -> None:
    with pytest.raises(BadInput, match=r"the certificate expired on \d{4}-\d\d-\d\d; renew it"):
        tls_context(*certificate, None)


def test_a_caller_who_says_nothing_does_not_keep_out_the_others(start, certificate) -> None:
    pem, key = certificate
    receiver, _ = start(tls=tls_context(pem, key, None))
    context = ssl.create_default_context(cafile=str(pem))
    with socket.create_connection(("127.0.0.1", receiver.port)):
        association = associated(receiver.port, tls_args=(context, "localhost"))
        assert association.is_established
        association.release()


def test_places_that_cannot_be_used(start, tmp_path) -> None:
    receiver, _ = start()
    with (
        pytest.raises(BadInput, match="in use"),
        Receiver(tmp_path / "other", Listener(port=receiver.port)),
    ):
        pass
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(BadInput, match="File exists"),
        Receiver(tmp_path / "file", Listener(port=0)),
    ):
        pass
    with (
        pytest.raises(BadInput, match="AE title"),
        Receiver(tmp_path / "other", Listener(port=0, ae_title="A" * 17)),
    ):
        pass


def test_only_this_machine_is_listened_to_if_nobody_says_otherwise(start) -> None:
    receiver, _ = start()
    assert receiver._server.server_address[0] == "127.0.0.1"


def test_dcmtk_sends_too(start, phantoms) -> None:
    debian = "/usr/bin"  # pynetdicom brings a storescu of its own
    if not shutil.which("storescu", path=debian):
        if os.environ.get("CI") == "true":
            pytest.fail("dcmtk is not installed, see .ci/orthanc, and CI must not skip")
        pytest.skip("dcmtk is not installed; .ci/orthanc does it")
    receiver, heard = start()
    plain = [file for file in phantoms if b"1.2.840.10008.1.2.5" not in file.read_bytes()[:1000]]
    files = [str(file) for file in plain[:10]]
    port = str(receiver.port)
    subprocess.run([f"{debian}/storescu", "127.0.0.1", port, *files], check=True, timeout=120)
    subprocess.run([f"{debian}/echoscu", "127.0.0.1", port], check=True, timeout=60)
    assert len(stored(receiver.folder)) == len(heard) == len(files) > 4


LISTEN = """
import sys, time
from pathlib import Path
from imaging.incoming.receiver import Listener, Receiver

with Receiver(Path(sys.argv[1]), Listener(port=0)) as receiver:
    print(receiver.port, flush=True)
    time.sleep(300)
"""


def listening(folder: Path, before: str = "") -> tuple[subprocess.Popen, int]:
    code = ["-c", LISTEN, str(folder)]
    command = ["bash", "-c", f'{before} exec "$@"', "bash", sys.executable, *code]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def test_out_of_room_is_told_and_leaves_no_half_file(
    phantoms, sent, dicom_dataset, tmp_path
) -> None:
    """The kernel refuses to write more than 64 KiB into one file."""
    process, port = listening(tmp_path / "scans", "ulimit -f 64;")
    try:
        large = dicom_dataset(Rows=512, Columns=512, PixelData=b"\0" * 2**19)
        association = associated(port, (large.SOPClassUID, ExplicitVRLittleEndian))
        assert association.send_c_store(large).Status == 0xA700
        assert [*(tmp_path / "scans").iterdir(), *(tmp_path / ".scans.receiving").iterdir()] == []
        small = dicom_dataset()
        assert association.send_c_store(small).Status == 0
        association.release()
        assert len(stored(tmp_path / "scans")) == 1
    finally:
        process.kill()
        process.wait()


def test_a_kill_in_the_middle_leaves_whole_scans_and_no_success_for_others(
    dicom_dataset, tmp_path
) -> None:
    folder = tmp_path / "scans"
    process, port = listening(folder)
    datasets = []
    for number in range(60):
        pixels = number.to_bytes(1) * 2**20
        one = dicom_dataset(Rows=1024, Columns=512, PixelData=pixels)
        one.SOPInstanceUID = f"1.2.3.{number}"
        datasets.append(one)
    association = associated(port, (datasets[0].SOPClassUID, ExplicitVRLittleEndian))
    safe: set[str] = set()

    def send() -> None:
        for number, dataset in enumerate(datasets):
            if number == 40:  # however late the kill comes, it comes in the middle
                process.wait(60)
            try:
                if association.send_c_store(dataset).get("Status", -1) == 0:
                    safe.add(dataset.SOPInstanceUID)
            except RuntimeError:  # the association is no more
                return

    sender = threading.Thread(target=send)
    sender.start()
    seen: set[str] = set()
    while len(safe) < 20:
        seen |= {path.name for path in folder.iterdir()}
        time.sleep(0.001)
    process.kill()
    process.wait()
    sender.join(60)
    assert 20 <= len(safe) < len(datasets)
    assert all(name.endswith(".dcm") for name in seen)  # never a half file in the folder
    after = {d.SOPInstanceUID: d for d in stored(folder)}
    assert safe <= after.keys()
    wanted = {d.SOPInstanceUID: d.PixelData for d in datasets}
    assert all(d.PixelData == wanted[uid] for uid, d in after.items())
    (tmp_path / ".scans.receiving" / "left").write_bytes(b"half")
    with Receiver(folder, Listener(port=0)):
        assert not list((tmp_path / ".scans.receiving").iterdir())
    assert len(stored(folder)) == len(after)


@pytest.mark.parametrize("wrong", [{"ae_title": "A" * 17}, {"port": "taken"}])
def test_a_listener_that_cannot_start_leaves_nothing_beside_the_folder(wrong, tmp_path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1] if "port" in wrong else 0
        with pytest.raises(BadInput, match=r"name another|AE title"):
            Receiver(tmp_path / "in", Listener(**wrong | {"port": port})).__enter__()
    assert not (tmp_path / ".in.receiving").exists()


def test_callers_without_an_association_are_counted(start) -> None:
    receiver, _ = start(allowed=("CT1",))
    assert associated(receiver.port).is_rejected
    with socket.create_connection(("127.0.0.1", receiver.port)):
        pass
    association = associated(receiver.port, calling="CT1")
    assert association.is_established
    association.release()
    until = time.monotonic() + 20
    while receiver.idle_s() == 0 and time.monotonic() < until:
        time.sleep(0.05)
    assert receiver.turned_away == 2


def test_a_folder_that_cannot_be_written_is_refused_before_anybody_sends(
    tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may do anything
    with pytest.raises(BadInput, match="in: Permission denied; name a folder to write to"):
        Receiver(tmp_path / "in", Listener(port=0)).__enter__()


def test_a_second_listener_does_not_take_the_first_ones_scans_for_leftovers(
    start, phantoms, sent, tmp_path
) -> None:
    receiver, _ = start()
    with pytest.raises(BadInput, match="another process fills it"):
        Receiver(receiver.folder, Listener(port=0)).__enter__()
    assert sent(receiver.port, phantoms[:2]) == [0, 0]
