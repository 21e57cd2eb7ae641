"""Masks as labels: read in workers like scans, cleaned, written by content, joined to images.

An image is positive if its mask marks anything. Masks are files nobody vouches for, too: NIfTI and
PNG are paired with images by name, DICOM segmentations by the UIDs that they refer to.
"""

import hashlib
import io
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imaging.config import Labels
from imaging.deidentification.verifying import verify
from imaging.incoming.folder import find_files
from imaging.labelling import labels, segmentations
from imaging.labelling.labels import Label, Mask
from imaging.reading import pixels, volumes
from imaging.reasons import SetAside
from imaging.snapshots import ingested
from imaging.snapshots.examine import read_file
from imaging.snapshots.examined import examine_files
from lineage import code
from lineage.digest import digest, keyed_digest
from lineage.errors import BadInput
from lineage.files import forget_time
from lineage.progress import Report

HIGHEST_VALUE = 65535
PAIRED_BY_NAME = (".gz", ".nii", ".png")

Facts = dict[str, Any]


def read_masks(
    folder: Path,
    config: Labels,
    snapshot: Path,
    *,
    key: bytes,
    timeout_s: float,
    memory_gib: float,
    report: Report | None = None,
    cache: Path | None = None,
) -> dict[str, Label]:
    """Read every mask below a folder into a label per image, and write it cleaned.

    A table in the folder may say whose the images are, and more; `config.key_column` then names
    them, by file.

    Args:
        folder: Holds NIfTI, PNG or DICOM SEG files at any depth.
        config: With the key `mask`.
        snapshot: Masks are written to `masks/` in it, named by their content.
        key: The pseudonym key: what is kept of identities is encrypted under it.
        timeout_s: For one file.
        memory_gib: For one file.
        report: Told of the progress.
        cache: Where to keep what was found out; see imaging/snapshots/ingested.py.

    Returns:
        By SOP Instance UID, or by path below the folder without suffix: see `match_files`.

    Raises:
        BadInput: No mask, or a table that cannot be read.
        StepFailed: A written mask is not what it should be, or cannot be written.
    """
    if not folder.is_dir():
        raise BadInput("labels: with the key `mask`, sources.labels names a folder of masks")
    files = _mask_files(folder)
    setup = {"masks": str(folder.absolute()), "key": key.hex(), "segments": list(config.segments)}
    label_of: dict[str, Label] = {}
    unused: Counter[str] = Counter()
    with ingested.ingested(cache, _recipe(config, key, memory_gib), snapshot) as store:
        examined = examine_files(
            "imaging.labelling.masks:examiner",
            setup,
            folder,
            files,
            store,
            timeout_s=timeout_s,
            memory_gib=memory_gib,
            report=report,
        )
        for file, facts in examined:
            name, reason = _stem(file), facts.get("reason")
            if reason and PurePosixPath(file).suffix.lower() in PAIRED_BY_NAME:
                _add(label_of, name, Label(None, reason="mask_unreadable"))
            for mask in facts.get("masks", ()):
                whose = mask.get("instance")
                _add(label_of, ingested.unseal(key, whose) if whose else name, _label(mask))
                if "path" in mask and not (snapshot / mask["path"]).exists():
                    store.place(mask["path"], snapshot / mask["path"])
            reasons = (reason, *(mask.get("reason") for mask in facts.get("masks", ())))
            unused.update(filter(None, reasons))
    told = ", ".join(f"{n} {reason}" for reason, n in sorted(unused.items()))
    if not any(label.mask for label in label_of.values()):
        raise BadInput(
            f"labels: none of the {len(files)} files in the folder is a mask that can be used "
            f"({told}); it takes NIfTI, PNG, or DICOM segmentations"
        )
    if told:
        logging.getLogger(__name__).warning("masks that are not used: %s", told)
    return _with_table(folder, config, label_of) if config.key_column else label_of


def rows_with_mask(folder: Path, config: Labels) -> dict[str, Label]:
    """Rows of the table beside masks that name an image with a mask; no mask is opened.

    Raises:
        BadInput: No such table.
    """
    if not config.key_column:
        return {}
    row_of = {_stem(key): row for key, row in labels.read_labels(folder, config).items()}
    stems = map(_stem, _mask_files(folder))
    return {name: row_of[name] for name in labels.match_files(stems, row_of).values()}


def match_files(files: Iterable[str], keys: Iterable[str]) -> dict[str, str]:
    """Find for each image the key in `read_masks`' answer that has its name, but for the suffix.

    As with `labels.match_files`, what could be meant twice is not matched.

    Args:
        files: Relative posix paths of images.
        keys: Of `read_masks`; UIDs among them name no file but one that is called so.
    """
    stems = {file: _stem(file) for file in files}
    alike = Counter(stems.values())
    named = {stem: file for file, stem in stems.items() if alike[stem] == 1}
    return {named[stem]: key for stem, key in labels.match_files(named, keys).items()}


def fitted(
    mask: Mask, shape: tuple[int, int, int], geometry: Sequence[float] | None, snapshot: Path
) -> Mask | None:
    """The mask as it lies on an image, or None if it does not fit.

    Args:
        mask: From `read_masks`.
        shape: Frames, rows and columns of the image.
        geometry: `volumes.Volume.geometry`, or `segmentations.grid` of DICOM.
        snapshot: Where the mask was written; one that names frames gets those it leaves out.
    """
    placed = [g is not None and g[3] != volumes.PLACED_BY_DICOM for g in (geometry, mask.geometry)]
    if placed[0] != placed[1]:
        return None  # a volume, and a picture or frames
    if geometry and mask.geometry and not volumes.same_grid(geometry, mask.geometry):
        return None
    if mask.by_frame and mask.shape[0] < shape[0] and mask.shape[1:] == shape[1:]:
        values = _read_written(snapshot / mask.path)
        whole = np.pad(values, ((0, shape[0] - len(values)), (0, 0), (0, 0)))
        path, sha256, data = _encoded(whole, None)
        _write(snapshot / path, data)
        return replace(mask, path=path, sha256=sha256, shape=shape)
    return mask if mask.shape == shape else None


def examiner(setup: dict[str, Any]) -> Callable[[str], Facts]:
    """The function that a worker runs on each file: facts of the masks in it, or the reason.

    Args:
        setup: `masks`, the folder of the files; `folder`, that of `ingested.Ingested`; `key`, the
            pseudonym key in hexadecimal; `segments`, as in `Labels`.
    """
    import pydicom

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    masks, folder = Path(setup["masks"]), Path(setup["folder"])
    key, segments = bytes.fromhex(setup["key"]), tuple(setup["segments"])
    knows = ingested.knower(folder)

    def examine(file: str) -> Facts:
        facts: Facts = {}
        try:
            data, media_type = read_file(masks / file, facts)
            if knows(facts["file_sha256"]):
                return facts | {"known": True}
            found = [_kept(f, folder, facts, key) for f in _masks(data, media_type, segments)]
            facts["masks"] = found
        except SetAside as error:
            facts["reason"] = error.reason
        return facts

    return examine


def _kept(mask: Facts, folder: Path, facts: Facts, key: bytes) -> Facts:
    """Write a mask; what is to be remembered of it."""
    values, uid = mask.pop("values"), mask.pop("instance_uid", None)
    if uid:
        mask["instance"] = ingested.seal(key, uid)
    if values is None:
        return mask
    path, sha256, data = _encoded(values, mask.pop("volume", None))
    if _holds(folder / path, data):  # many masks are empty, and all of these are one
        facts.setdefault("cleaned", {})[path] = ingested.as_written(folder / path)
    else:
        ingested.write_checked(data, path, folder, facts, lambda draft: _leaks(draft, data, values))
    return mask | {
        "path": path,
        "sha256": sha256,
        "voxels": int(np.count_nonzero(values)),
        "shape": list(values.shape),
    }


def _holds(path: Path, data: bytes) -> bool:
    return path.exists() and path.read_bytes() == data


def _recipe(config: Labels, key: bytes, memory_gib: float) -> str:
    """Names everything that facts depend on but the file: with more memory it may be read."""
    fingerprint = keyed_digest(key, "fingerprint", "masks")
    sources = code.code_digest("imaging.labelling.masks")
    return digest("masks", config.segments, memory_gib, fingerprint, sources, code.environment())


def _mask_files(folder: Path) -> list[str]:
    return [f for f in find_files(folder) if PurePosixPath(f).suffix.lower() not in labels.TABLES]


def _masks(data: bytes, media_type: str, segments: Sequence[int | str]) -> Iterator[Facts]:
    if media_type == volumes.NIFTI:
        volume = volumes.stored_volume(data)
        values = _picked(_whole_numbers(volume), segments)
        cleaned = replace(volume, array=values, slope=1.0, intercept=0.0, declared=None)
        yield {"values": values, "volume": cleaned, "geometry": cleaned.geometry}
        return
    if media_type == pixels.PNG:
        yield {"values": _picked(_picture(data)[None], segments)}
        return
    if media_type != pixels.DICOM:  # a JPEG blurs the edges between labels
        raise SetAside("mask_unreadable")
    for found in segmentations.label_maps(data, segments):
        facts = {"values": found.values, "reason": found.reason, "by_frame": found.by_frame}
        yield facts | {"instance_uid": found.instance_uid, "geometry": found.geometry}


def _whole_numbers(volume: volumes.Volume) -> NDArray[Any]:
    """What it means, without scale. Probabilities are no mask."""
    values = volume.array
    if (volume.slope, volume.intercept) != (1, 0):
        values = values * volume.slope + volume.intercept
    if values.dtype.kind == "f" and not (np.isfinite(values) & (values == np.rint(values))).all():
        raise SetAside("mask_unreadable")
    if values.min() < 0 or values.max() > HIGHEST_VALUE:
        raise SetAside("mask_unreadable")
    return values.astype(np.uint8 if values.max() < 256 else np.uint16)


def _picture(data: bytes) -> NDArray[Any]:
    """Grey values, or the numbers of a palette's colours, of a PNG."""
    from PIL import Image

    with io.BytesIO(data) as stream:
        try:
            image = Image.open(stream, formats=("PNG",))
            if image.mode == "P" and image.width * image.height <= segmentations.MAX_VOXELS:
                return np.asarray(image)
        except Exception:  # Pillow raises whatever its decoders do
            raise SetAside("mask_unreadable") from None
    return pixels.stored_picture(data)


def _picked(values: NDArray[Any], segments: Sequence[int | str]) -> NDArray[Any]:
    """Only what was asked for, by its place in that list, from 1; all of it if nothing was."""
    if not segments:
        return values
    picked = np.zeros(values.shape, np.uint8)
    for place, number in reversed(list(enumerate(segments, start=1))):
        if isinstance(number, int):  # only DICOM's segments have names
            picked[values == number] = place
    return picked


def _encoded(values: NDArray[Any], volume: volumes.Volume | None) -> tuple[str, str, bytes]:
    """Where a mask goes, its digest, and its bytes."""
    from PIL import Image

    if volume is None and len(values) == 1:
        buffer = io.BytesIO()
        Image.fromarray(values[0]).save(buffer, format="PNG", compress_level=1)
        data, suffix = buffer.getvalue(), ".png"
    else:
        data, suffix = volumes.encode(volume or volumes.Volume(values, np.eye(4), 0)), ".nii.gz"
    sha256 = hashlib.sha256(data).hexdigest()
    return f"masks/{sha256[:2]}/{sha256}{suffix}", sha256, data


def _read_written(path: Path) -> NDArray[Any]:
    data = path.read_bytes()
    if path.suffix == ".png":
        return pixels.stored_picture(data)[None]
    return volumes.stored_volume(data).array


def _write(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft.write_bytes(data)
    forget_time(draft)
    draft.replace(path)


def _leaks(path: Path, data: bytes, values: NDArray[Any]) -> list[verify.Leak]:
    """Open a written mask again, and tell what is wrong with it."""
    if pixels.media_type(data) == pixels.PNG:
        return verify.verify_picture(path, pixels.pixel_digest(pixels.scale_picture(values[0])))
    return volumes.verify_volume(path, volumes.stored_digest(volumes.Volume(values, np.eye(4), 0)))


def _label(facts: Facts) -> Label:
    if facts.get("reason"):
        return Label(None, reason=facts["reason"])
    geometry = facts.get("geometry")
    mask = Mask(
        path=facts["path"],
        sha256=facts["sha256"],
        voxels=facts["voxels"],
        shape=tuple(facts["shape"]),
        geometry=tuple(geometry) if geometry else None,
        by_frame=facts.get("by_frame", False),
    )
    return Label(int(mask.voxels > 0), mask=mask)


def _stem(file: str) -> str:
    """The path without suffix; `.nii.gz` is one."""
    twice = file[: -len(".gz")] if file.lower().endswith(".nii.gz") else file
    return labels.without_suffix(twice)


def _add(label_of: dict[str, Label], key: str, label: Label) -> None:
    """Two masks for one image are one too many, unless they say the same."""
    known = label_of.setdefault(key, label)
    if known != label:
        label_of[key] = Label(None, conflict=True)


def _with_table(folder: Path, config: Labels, label_of: Mapping[str, Label]) -> dict[str, Label]:
    """Add what the table in the folder says of the image with the same name."""
    rows = labels.read_labels(folder, config)
    row_of = {_stem(key): row for key, row in rows.items()}
    whose = labels.match_files(label_of, row_of)
    told = dict(label_of)
    for key, name in whose.items():
        label, row = label_of[key], row_of[name]
        told[key] = replace(
            row,
            label=label.label,
            conflict=label.conflict or row.conflict,
            mask=label.mask,
            reason=label.reason,
        )
    return told
