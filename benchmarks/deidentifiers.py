"""One de-identifier as its users call it, in its own environment.

    python deidentifiers.py TOOL POLICY

Reads {"source": PATH, "target": PATH} line by line, writes {"cpu_s", "wall_s", "error"} for each,
on one core. `error` is the kind of what went wrong; there is then no target.
"""

import contextlib
import io
import json
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

Clean = Callable[[Path, Path], None]


def pydicom_copy() -> Clean:
    """The floor: read, and write again."""
    import pydicom

    return lambda source, target: pydicom.dcmread(source).save_as(target)


def deid(**options: bool) -> Clean:
    """By its default recipe."""
    from deid.config import DeidRecipe
    from deid.dicom import replace_identifiers

    recipe = DeidRecipe()

    def clean(source: Path, target: Path) -> None:
        (cleaned,) = replace_identifiers([str(source)], deid=recipe, save=False, **options)
        cleaned.save_as(target)

    return clean


def dicognito() -> Clean:
    """Seeded, so that a study's files fit together."""
    import pydicom
    from dicognito.anonymizer import Anonymizer

    anonymizer = Anonymizer(seed="benchmark")

    def clean(source: Path, target: Path) -> None:
        with pydicom.dcmread(source) as dataset:
            anonymizer.anonymize(dataset)
            dataset.save_as(target)

    return clean


def dicom_anonymizer() -> Clean:
    """By the rules of the newest edition that it brings."""
    from dicomanonymizer.simpledicomanonymizer import anonymize_dicom_file, initialize_actions

    def rules() -> dict:
        return initialize_actions("dicomfields_2026c")

    return lambda source, target: anonymize_dicom_file(
        str(source), str(target), base_rules_gen=rules
    )


def lightbox(policy_json: str, checked: bool = True) -> Clean:
    """As the examiner of ingest calls it, without what ingest does beside it."""
    import pydicom

    from imaging.deidentification import burned_in, deidentify, encoding, spellings
    from imaging.deidentification.policy import DeidentificationPolicy
    from imaging.deidentification.pseudonyms import Pseudonyms
    from imaging.deidentification.verifying import identities, verify
    from imaging.reading import dicom, pixels
    from imaging.reasons import SetAside

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    policy = DeidentificationPolicy.model_validate_json(policy_json)
    names = Pseudonyms(b"benchmark".ljust(32))

    def clean(source: Path, target: Path) -> None:
        dataset = dicom.parse(source.read_bytes())
        stored = dicom.stored_pixels(dataset)
        if not dataset.get("PatientID"):
            if not dataset.get("StudyInstanceUID"):
                raise SetAside("no_patient_id")
            dataset.PatientID = dataset.StudyInstanceUID  # as `lightbox deidentify` does
        regions = burned_in.text_regions(dataset, stored, policy.text_in_pixels)
        stored = burned_in.masked(stored, regions, dataset) if regions else stored
        digest = pixels.pixel_digest(dicom.as_seen(dataset, stored)) if checked else ""
        before = identities.describe(dataset, digest, policy)
        mention = spellings.mention(before.identifiers, before.spelled)
        written = deidentify.deidentify(dataset, stored, names, mention, policy, bool(regions))
        target.write_bytes(encoding.encode(written))
        if checked:
            pseudonym = names.patient(str(dataset.PatientID))
            method = deidentify.method(policy)
            if verify.verify(target, before, pseudonym, method, policy):
                target.unlink()
                raise ValueError("leak")

    return clean


TOOLS: dict[str, Callable[[str], Clean]] = {  # by a policy, which ours alone knows
    "pydicom": lambda _: pydicom_copy(),
    "lightbox": lightbox,
    "lightbox-basic": lightbox,
    "lightbox-unchecked": lambda policy: lightbox(policy, checked=False),
    "deid": lambda _: deid(),
    "deid-stripped": lambda _: deid(remove_private=True, strip_sequences=True),
    "dicognito": lambda _: dicognito(),
    "dicom-anonymizer": lambda _: dicom_anonymizer(),
}


def main() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    answers = sys.stdout
    noise = io.StringIO()
    with contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise):
        clean = TOOLS[sys.argv[1]](sys.argv[2])
        for line in sys.stdin:
            order = json.loads(line)
            source, target, error = Path(order["source"]), Path(order["target"]), ""
            wall, cpu = time.perf_counter(), time.process_time()
            try:
                clean(source, target)
            except (Exception, SystemExit) as problem:  # a tool's own way to say no
                error = getattr(problem, "reason", None) or type(problem).__name__
            took = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
            print(json.dumps(took | {"error": error}), file=answers, flush=True)
            noise.truncate(0)


if __name__ == "__main__":
    main()
