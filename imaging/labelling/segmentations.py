"""DICOM segmentations (PS3.3 A.51, A.90) as label maps of the images that they refer to.

Nothing of their headers goes on but which image each frame belongs to and what its segment is.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imaging.reading import dicom, volumes
from imaging.reasons import SetAside

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

STORAGE = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # the second: LABELMAP
MAX_VOXELS = 2**29  # of all label maps of one object
MAX_SEGMENT = 65535


@dataclass(frozen=True, eq=False)
class LabelMap:
    """What an object says of one image.

    Attributes:
        instance_uid: Of the image.
        values: (F, H, W) uint8 or uint16, 0 for background; None if it cannot be used.
        reason: Then, a key of `imaging.reasons.REASONS`.
        by_frame: The image has several frames, and perhaps more than are marked here.
        geometry: As `grid` has it of the image, where the object says it.
    """

    instance_uid: str
    values: NDArray[Any] | None
    reason: str | None = None
    by_frame: bool = False
    geometry: list[float] | None = None


@dataclass(frozen=True)
class _Frame:
    index: int  # in the pixel data
    place: int | None  # the frame of the image, from 1; None if the image has but one
    segment: int | None  # None: each pixel says it
    unclear: bool  # drawn on several images, or not on the grid of the image
    geometry: list[float] | None


def label_maps(data: bytes, segments: Sequence[int | str] = ()) -> Iterator[LabelMap]:
    """The label map of each image that a segmentation refers to, one in memory at a time.

    BINARY, FRACTIONAL (marked from half of the highest value on) and LABELMAP. An image that is
    referred to, and on which no frame marks anything, has a map of background.

    Args:
        data: The file's bytes.
        segments: What to mark, by number, label, or type as "scheme|code"; its place in this
            list, from 1, is its value in the map. Empty: every segment, by its number.

    Raises:
        SetAside: mask_unreadable, or a reason of `imaging.reading.dicom`.
    """
    source = dicom.parse(data)
    if str(source.get("SOPClassUID")) not in STORAGE:
        raise SetAside("mask_unreadable")
    try:
        frames, marked = _frames(source), _marked(source, segments)
        by_image, referred = _by_image(source, len(frames)), _referred(source)
    except SetAside:
        raise
    except Exception:  # attributes may be missing, or hold anything
        raise SetAside("mask_unreadable") from None
    sizes = [max((f.place or 1 for f in group), default=1) for group in by_image.values()]
    if (sum(sizes) + 1) * math.prod(frames.shape[1:]) > MAX_VOXELS:
        raise SetAside("too_large")
    for uid, group in by_image.items():
        yield _label_map(uid, group, frames, marked)
    empty = np.zeros((1, *frames.shape[1:]), np.uint8)
    yield from (LabelMap(uid, empty, by_frame=True) for uid in referred if uid not in by_image)


def grid(source: "Dataset", macro: Callable[[str], Any] | None = None) -> list[float] | None:
    """Where the pixels of a frame lie (PS3.3 C.7.6.2.1.1), for `imaging.reading.volumes.same_grid`.

    Args:
        source: An image of one frame, or an object with functional groups.
        macro: Then, answers with a functional group by its name.

    Returns:
        None where the header does not say it.
    """
    of = macro or (lambda name: [source])
    try:
        (position,), (orientation,), (measures,) = map(
            of, ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
        )
        corner = np.array(position.ImagePositionPatient, dtype=float)
        directions = np.array(orientation.ImageOrientationPatient, dtype=float).reshape(2, 3)
        row_mm, column_mm = map(float, measures.PixelSpacing)
        normal = np.cross(*directions)
        affine = np.column_stack(
            [directions[0] * column_mm, directions[1] * row_mm, normal, corner]
        )
        placed = [1.0, float(source.Rows), float(source.Columns), volumes.PLACED_BY_DICOM]
        return [*placed, *map(float, affine.ravel())] if np.isfinite(affine).all() else None
    # The last is pydicom's, of a value representation that there is not.
    except (ArithmeticError, AttributeError, TypeError, ValueError, NotImplementedError):
        return None


def _frames(source: "Dataset") -> NDArray[Any]:
    """(N, H, W): whether marked, or for LABELMAP the number of the segment."""
    kind = str(source.SegmentationType)
    if kind not in ("BINARY", "FRACTIONAL", "LABELMAP"):
        raise SetAside("mask_unreadable")
    source.PhotometricInterpretation = "MONOCHROME2"  # a palette only colours the segments' numbers
    stored = dicom.stored_pixels(source)
    frames = stored[None] if stored.ndim == 2 else stored
    if frames.ndim != 3 or frames.size > MAX_VOXELS:
        raise SetAside("mask_unreadable")
    if kind == "LABELMAP":
        return frames
    highest = int(source.MaximumFractionalValue) if kind == "FRACTIONAL" else 1
    return np.asarray(frames >= max(highest / 2, 0.5))


def _marked(source: "Dataset", segments: Sequence[int | str]) -> Mapping[int, int]:
    """The value in the map of each segment's number."""
    known = {int(s.SegmentNumber): s for s in source.SegmentSequence}
    if any(not 0 <= number <= MAX_SEGMENT for number in known):
        raise SetAside("mask_unreadable")
    if not segments:
        return {number: number for number in known}
    values: dict[int, int] = {}
    for number, segment in known.items():
        called = {number, str(segment.get("SegmentLabel", "")).strip().casefold()}
        for code in segment.get("SegmentedPropertyTypeCodeSequence") or ():
            called.add(f"{code.get('CodingSchemeDesignator')}|{code.get('CodeValue')}".casefold())
        for value, name in enumerate(segments, start=1):
            if (name.casefold() if isinstance(name, str) else name) in called:
                values.setdefault(number, value)
    return values


def _by_image(source: "Dataset", count: int) -> dict[str, list[_Frame]]:
    """Which frames are drawn on which image (PS3.3 C.7.6.16.2.6)."""
    shared: Any = next(iter(source.get("SharedFunctionalGroupsSequence") or ()), {})
    groups: list[Any] = list(
        source.get("PerFrameFunctionalGroupsSequence") or ({} for _ in range(count))
    )
    if len(groups) != count:
        raise SetAside("mask_unreadable")
    found: dict[str, list[_Frame]] = defaultdict(list)
    for index, group in enumerate(groups):
        identified = _macro(group, shared, "SegmentIdentificationSequence")
        segment = next((int(s.ReferencedSegmentNumber) for s in identified), None)
        if segment is None and str(source.SegmentationType) != "LABELMAP":
            raise SetAside("mask_unreadable")
        images = [
            image
            for derivation in _macro(group, shared, "DerivationImageSequence")
            for image in derivation.get("SourceImageSequence") or ()
        ]
        for image in images:
            numbers = image.get("ReferencedFrameNumber")
            places = [None] if numbers is None else _integers(numbers)
            unclear = len(images) > 1 or len(places) > 1
            unclear |= str(image.get("SpatialLocationsPreserved", "YES")) != "YES"
            geometry = grid(source, partial(_macro, group, shared))
            for place in places:
                if place is not None and not 1 <= place <= MAX_VOXELS:
                    raise SetAside("mask_unreadable")
                frame = _Frame(index, place, segment, unclear, geometry)
                found[str(image.ReferencedSOPInstanceUID)].append(frame)
    return found


def _macro(group: Any, shared: Any, name: str) -> Any:
    """A functional group of one frame, or of all of them."""
    return group.get(name) or shared.get(name) or ()


def _integers(value: Any) -> list[int]:
    return [int(value)] if isinstance(value, int | str) else [int(v) for v in value]


def _referred(source: "Dataset") -> list[str]:
    return [
        str(image.ReferencedSOPInstanceUID)
        for series in source.get("ReferencedSeriesSequence") or ()
        for image in series.get("ReferencedInstanceSequence") or ()
    ]


def _label_map(
    uid: str, group: Sequence[_Frame], frames: NDArray[Any], marked: Mapping[int, int]
) -> LabelMap:
    if any(frame.unclear for frame in group):
        return LabelMap(uid, None, "mask_mismatch")
    by_frame = any(frame.place for frame in group)
    depth = max(frame.place or 1 for frame in group)
    kind = np.uint8 if max(marked.values(), default=0) < 256 else np.uint16
    values = np.zeros((depth, *frames.shape[1:]), kind)
    for frame in group:
        drawn = frames[frame.index]
        below = values[(frame.place or 1) - 1]
        for number in np.unique(drawn) if frame.segment is None else (frame.segment,):
            value = marked.get(int(number), 0)
            region = drawn == number if frame.segment is None else drawn
            if not value or not number:
                continue
            # A map has one value per pixel; which of two segments it should be is not ours to say.
            if ((below[region] != 0) & (below[region] != value)).any():
                return LabelMap(uid, None, "overlapping_segments")
            below[region] = value
    geometry = None if by_frame else group[0].geometry
    if any(frame.geometry != geometry for frame in group) and not by_frame:
        return LabelMap(uid, None, "mask_mismatch")
    return LabelMap(uid, values, by_frame=by_frame, geometry=geometry)
