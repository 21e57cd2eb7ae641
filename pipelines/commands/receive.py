"""Scans in: fetched from where they lie, or received from whoever sends them."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipelines.commands.options import JSON, print_json

if TYPE_CHECKING:
    from imaging.incoming.receiver import Received

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("address")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say how much there is; fetch nothing.")
@JSON
def fetch(address: str, folder: Path, dry_run: bool, as_json: bool) -> None:
    """Copy the scans at ADDRESS into FOLDER; again, only what is new, or gone there.

    ADDRESS is s3://BUCKET/PREFIX, or dicomweb+https://HOST/ROOT with a query such as
    ?StudyDate=20240101-&Modality=CR. What was fetched stays if it breaks off.

    \b
    Example: lightbox fetch 'dicomweb+https://pacs.example.org/dicom-web?Modality=CR' data/scans
    """
    from components.progress import progress
    from imaging.incoming.mirror import look, mirror, state_beside
    from imaging.incoming.remote import open_origin
    from lineage.files import in_bytes

    origin, state = open_origin(address), state_beside(folder, "fetched")
    if dry_run:
        change = look(origin, address, folder, state)
    else:
        with progress("fetch") as report:
            change = mirror(origin, address, folder, state, report)
    if as_json:
        counts = {"new": len(change.new), "new_bytes": change.new_bytes, "kept": change.kept}
        print_json({"fetched": not dry_run, **counts, "gone": len(change.gone)})
        return
    size = f" ({in_bytes(change.new_bytes)})" if change.new_bytes is not None else ""
    verbs = ("to fetch", "to remove") if dry_run else ("fetched", "removed")
    click.echo(
        f"{len(change.new)} {verbs[0]}{size}, {change.kept} here already, "
        f"{len(change.gone)} {verbs[1]} because they are gone at the source"
    )


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Listen on this address.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=11112, show_default=True, help="0: a free one."
)
@click.option("--ae-title", default="LIGHTBOX", show_default=True, help="Our AE title.")
@click.option("--allow", multiple=True, metavar="AET", help="Take scans from these AE titles only.")
@click.option("--require-called", is_flag=True, help="Refuse who calls another AE title than ours.")
@click.option(
    "--stop-after-idle-s",
    "most_idle_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="End when nobody was connected for so many seconds.",
)
@click.option(
    "--max-object-mib",
    type=click.IntRange(min=1),
    default=512,
    show_default=True,
    help="Refuse larger data sets; memory holds one for each association.",
)
@click.option(
    "--max-associations",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="How many may be connected at once.",
)
@click.option(
    "--max-pdu",
    type=click.IntRange(4096, 2**20),
    default=2**17,
    show_default=True,
    help="Bytes of the largest protocol data unit.",
)
@click.option(
    "--timeout-s",
    type=click.FloatRange(min=0, min_open=True),
    default=60,
    show_default=True,
    help="End an association after so many seconds of silence.",
)
@click.option("--tls-cert", type=FILE, help="Demand TLS; our certificate, as PEM.")
@click.option("--tls-key", type=FILE, help="The key of --tls-cert.")
@click.option("--tls-ca", type=FILE, help="Callers must show a certificate of this authority.")
@JSON
def receive(
    folder: Path,
    host: str,
    port: int,
    ae_title: str,
    allow: tuple[str, ...],
    require_called: bool,
    most_idle_s: float | None,
    max_object_mib: int,
    max_associations: int,
    max_pdu: int,
    timeout_s: float,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_ca: Path | None,
    as_json: bool,
) -> None:
    """Listen for scans that a scanner or an archive sends (DICOM C-STORE), and keep them in FOLDER.

    Success is answered when a scan is safely on the disk. Until Ctrl-C, which lets what is in
    flight come to its end. FOLDER may be the `sources.scans` of runs at the same time. With --json
    there is a line for each scan, with its size and what became of it.

    \b
    Example: lightbox receive data/scans --port 11112 --ae-title LIGHTBOX
    """
    from components.progress import progress
    from imaging.incoming.receiver import Listener, Receiver, tls_context
    from lineage.files import in_bytes

    if bool(tls_cert) != bool(tls_key) or (tls_ca and not tls_cert):
        raise click.UsageError("TLS takes --tls-cert and --tls-key together; --tls-ca adds to them")
    tls = tls_context(tls_cert, tls_key, tls_ca) if tls_cert and tls_key else None
    listener = Listener(
        host=host,
        port=port,
        ae_title=ae_title,
        allowed=allow,
        require_called=require_called,
        max_pdu_bytes=max_pdu,
        max_object_mib=max_object_mib,
        max_associations=max_associations,
        timeout_s=timeout_s,
        tls=tls,
    )
    tally: Counter[str] = Counter()
    with progress("receive") as report:

        def hear(received: "Received") -> None:
            tally[received.outcome] += 1
            tally["bytes"] += received.size_bytes if received.outcome == "stored" else 0
            if as_json:
                line = {"event": received.outcome, "status": f"{received.status:04X}"}
                more = {"bytes": received.size_bytes, **({"why": w} if (w := received.why) else {})}
                click.echo(json.dumps(line | more))
            elif received.why:
                click.echo(f"refused: {received.why} ({received.status:04X})", err=True)
            note = f"{in_bytes(tally['bytes'])}, {tally['refused']} refused"
            report(tally["stored"] + tally["known"], 0, note)

        receiver = Receiver(folder, listener, hear)
        try:
            with receiver:
                _tell_start(receiver.port, listener.host, ae_title, bool(tls), as_json)
                while most_idle_s is None or receiver.idle_s() < most_idle_s:
                    time.sleep(0.1)
        except KeyboardInterrupt:
            pass  # the usual end of a listener
    counts = {kind: tally[kind] for kind in ("stored", "known", "refused", "bytes")}
    counts["turned_away"] = receiver.turned_away
    if as_json:
        click.echo(json.dumps({"event": "ended", **counts}))
        return
    click.echo(
        f"{tally['stored']} stored ({in_bytes(tally['bytes'])}), {tally['known']} here before, "
        f"{tally['refused']} refused"
    )
    if receiver.turned_away:
        click.echo(
            f"{receiver.turned_away} callers turned away: their certificate, their AE title, the "
            "one they called, or not DICOM",
            err=True,
        )


def _tell_start(port: int, host: str, ae_title: str, tls: bool, as_json: bool) -> None:
    """Where it listens; whoever waits for that line may send."""
    if as_json:
        click.echo(json.dumps({"event": "listening", "host": host, "port": port, "tls": tls}))
        return
    click.echo(f"{ae_title} listens on {host}:{port}{' with TLS' if tls else ''}; Ctrl-C ends it")
    if not tls and host not in ("127.0.0.1", "localhost", "::1"):
        click.echo("warning: without --tls-cert, scans cross the network for all to read", err=True)
