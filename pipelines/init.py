"""From a look at own data to settings that run as they are, each with the reason for its value."""

import json
import math
import os
import re
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from imaging.config import Fractions, SplittingConfig, ValidationConfig
from imaging.reasons import REASONS
from imaging.surveying.headers import OTHER
from imaging.surveying.oddities import oddities
from imaging.surveying.survey import Survey
from lineage.errors import BadInput

FEWEST_PATIENTS = 30  # in all; with fewer, nothing can be shown
FEWEST_OF_CLASS = 8
GOOD_AUROC = 0.95  # what the gate's bound is made reachable for
BOUNDS = (0.60, 0.80)  # at most and at least so much is demanded of the AUROC
ENOUGH = {"patients": 200, "class": 50}  # the gate asks for no more, however large the data
MOST_SECONDS, MOST_EPOCHS, FEWEST_EPOCHS = 3600, 30, 5
# On one core at 128 x 128 pixels; rough, and only told and used as such.
SECONDS_PER_IMAGE_AND_EPOCH, SECONDS_PER_IMAGE, SECONDS_PER_PIXEL = 0.0055, 0.02, 6e-8
SECONDS_OF_START = 25
SAYS_NOTHING = {"data", "dicom", "images", "scans"}  # of a folder's name: its parent's is better
UNSAYABLE = (
    "settings cannot say the name of the folder, the table, a column or a class exactly as it is; "
    "rename what holds characters that are no letters, digits or signs"
)
LEFT_AND_RIGHT = {"l", "r", "left", "right"}


@dataclass(frozen=True)
class Proposal:
    """Values of the settings that depend on the data.

    Attributes:
        name: Of the registered model.
        side: Images are resized to so many pixels, squared.
        flip: Whether a mirrored image still deserves its label.
        minutes: That a run may take on one CPU core, roughly.
        test: Patients to expect in the test split, and of each class, negative first.
        patients, of_class: The gate's minimum_n; the draw will hardly ever leave fewer.
        at_least: The gate's lower bound of the AUROC.
        validation: What differs from the defaults.
        warnings: What may keep a run from ending well.
    """

    name: str
    fractions: Fractions
    minimum_patients: int
    side: int
    flip: bool
    epochs: int
    minutes: int
    test: tuple[int, int, int]
    patients: int
    of_class: tuple[int, int]
    at_least: float
    validation: dict[str, Any]
    warnings: tuple[str, ...]


def propose(survey: Survey, folder: Path) -> Proposal:
    """Choose what depends on the data.

    Args:
        survey: From `imaging.surveying.survey.survey`.
        folder: That was asked about; the model is named after it and the label.

    Raises:
        BadInput: Too few patients to learn from and to show anything by.
    """
    _require_enough(survey)
    fractions = _fractions(survey.patients)
    test, validation = fractions.test, fractions.validation
    negatives, positives = survey.class_patients
    expected = (survey.patients * test, negatives * test, positives * test)
    reachable = lower_limit(GOOD_AUROC, expected[2], expected[1])
    at_least = min(max(math.floor(reachable * 20) / 20, BOUNDS[0]), BOUNDS[1])
    side = 128 if max(survey.typical) >= 128 else 64
    scale = survey.files / survey.looked_at
    epoch = SECONDS_PER_IMAGE_AND_EPOCH * (side / 128) ** 2 * survey.usable * scale
    epoch *= fractions.train
    epochs = min(max(int(MOST_SECONDS / epoch), FEWEST_EPOCHS), MOST_EPOCHS)
    pixels = survey.typical[0] * survey.typical[1]
    reading = survey.images * scale * (SECONDS_PER_IMAGE + SECONDS_PER_PIXEL * pixels)
    labels = survey.settings
    words = set(re.findall("[a-z]+", f"{labels.column} {' '.join(labels.classes)}".lower()))
    return Proposal(
        name=_name(folder, labels.column),
        fractions=fractions,
        minimum_patients=min(
            max(_at_least(survey.patients, validation), 2), SplittingConfig().minimum_patients
        ),
        side=side,
        flip=not words & LEFT_AND_RIGHT and "lateral" not in labels.column.lower(),
        epochs=epochs,
        minutes=math.ceil((SECONDS_OF_START + reading + epochs * epoch) / 60),
        test=(round(expected[0]), round(expected[1]), round(expected[2])),
        patients=min(_at_least(survey.patients, test), ENOUGH["patients"]),
        of_class=(
            min(_at_least(negatives, test), ENOUGH["class"]),
            min(_at_least(positives, test), ENOUGH["class"]),
        ),
        at_least=at_least,
        validation=_validation(survey),
        warnings=tuple(_warnings(survey, fractions, reachable)),
    )


def lower_limit(auroc: float, positives: float, negatives: float) -> float:
    """Where the 95 % interval of an AUROC begins, for so many patients with one image each.

    Variance: Hanley and McNeil (1982, Radiology 143:29). Interval as in evaluation/intervals.py.
    """
    from scipy.special import expit, logit, stdtrit

    smaller = min(positives, negatives)
    if smaller < 2:
        return 0.0
    both_above, both_below = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = (
        auroc * (1 - auroc)
        + (positives - 1) * (both_above - auroc**2)
        + (negatives - 1) * (both_below - auroc**2)
    ) / (positives * negatives)
    half = -stdtrit(smaller - 1, 0.025) * math.sqrt(variance) / (auroc * (1 - auroc))
    return float(expit(logit(auroc) - half))


def write(path: Path, survey: Survey, proposal: Proposal, *, force: bool = False) -> None:
    """Write the settings, checked by the very function that will read them.

    Raises:
        BadInput: The file is there and must not be replaced, its folder cannot be written, or the
            data is called what settings cannot say.
    """
    from pipelines.config import Sources, load
    from pipelines.schema import comment_for

    if path.exists() and not force:
        raise BadInput(f"{path} is already there: --force replaces it, -o names another file")
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.write_text(comment_for(path) + as_yaml(survey, proposal), encoding="utf-8")
            read, sources = load(draft), Sources(scans=survey.scans, labels=survey.labels)
            if (read.sources, read.ingestion.labels) != (sources, survey.settings):
                raise BadInput(f"{path}: {UNSAYABLE}")
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise BadInput(f"{path}: cannot be written ({error.strerror}); -o names another") from None


def as_yaml(survey: Survey, proposal: Proposal) -> str:
    """The settings as text, with what was found and why each value was chosen."""
    p, labels = proposal, survey.settings
    negative, positive = labels.classes
    of_all = "" if survey.complete else f" (of {survey.looked_at} files, drawn at random)"
    found = [
        f"{_told(survey.kinds)}{of_all}, typically {survey.typical[0]} x {survey.typical[1]} "
        f"pixels; {survey.with_row} of {survey.images} images have a row in the labels table.",
        f"{survey.usable} images of {survey.patients} patients can be used: "
        f"{survey.class_images[0]} {negative!r} (of {survey.class_patients[0]} patients), "
        f"{survey.class_images[1]} {positive!r} (of {survey.class_patients[1]}).",
    ]
    notes = [f"Odd: {odd}." for odd in oddities(survey)]
    notes += [f"WARNING: {warning}." for warning in p.warnings]
    columns = {
        name: value
        for name in ("patient", "sex", "age", "scanner", "site")
        if (value := getattr(labels, f"{name}_column")) is not None
    }
    others = ", ".join(map(repr, survey.other_labels))
    middle, low = p.test, p.of_class
    f = p.fractions
    lines = [
        *_comment("", "Written by `lightbox init`; a proposal to read and to change."),
        *(line for text in found + notes for line in _comment("", text)),
        "sources:",
        f"  scans: {_value(survey.scans)}",
        f"  labels: {_value(survey.labels)}",
        "",
        "ingestion:",
        "  labels:",
        f"    key: {labels.key}  # what the key column names",
        f"    key_column: {_value(labels.key_column)}",
        *_comment("    ", f"The label, because {survey.why}. Others: {others or 'none'}."),
        f"    column: {_value(labels.column)}",
        *_comment("    ", f"The negative class first; told {survey.order}."),
        f"    classes: [{_value(negative)}, {_value(positive)}]",
        *(f"    {name}_column: {_value(value)}" for name, value in columns.items()),
        "",
        *_validation_lines(survey, p),
        "splitting:",
        *_comment(
            "  ",
            f"By patient. About {middle[0]} of {survey.patients} patients will be tested on, "
            f"{middle[1]} with {negative!r} and {middle[2]} with {positive!r}.",
        ),
        f"  fractions: {{train: {f.train:g}, validation: {f.validation:g}, test: {f.test:g}}}",
        *(
            [f"  minimum_patients: {p.minimum_patients}  # per split; the data is small"]
            if p.minimum_patients < SplittingConfig().minimum_patients
            else []
        ),
        "",
        *_training_lines(p),
        "",
        "gating:",
        "  rules:",
        *_comment("    ", "What a draw of the test split will hardly ever stay below."),
        f"    - {{rule: minimum_n, patients: {p.patients}, positives: {low[1]}, "
        f"negatives: {low[0]}}}",
        *_comment(
            "    ",
            f"The whole 95 % interval must lie above. With this test split a model of AUROC "
            f"{GOOD_AUROC:g} would show at least about "
            f"{lower_limit(GOOD_AUROC, middle[2], middle[1]):.2f}. Raise it to what is needed.",
        ),
        f"    - {{rule: lower_bound, metric: auroc, at_least: {p.at_least:.2f}}}",
        *_comment("    ", "From the second model on; the first has nothing to be compared with."),
        "    - {rule: not_worse_than_champion, metric: auroc, margin: 0.03}",
        "",
        *_comment("", "Who passes the gate waits for a person: `lightbox approve` (exit code 4)."),
        "registration:",
        f"  name: {_value(p.name)}",
    ]
    return "\n".join(lines) + "\n"


def _training_lines(p: Proposal) -> list[str]:
    shift = round(p.side * 0.08)
    flip = ["    - {name: RandFlip, args: {prob: 0.5, spatial_axis: 1}}"]
    return [
        "training:",
        *_comment("  ", "A small ResNet: what a few hundred images can fill and a CPU can train."),
        "  network:",
        "    name: ResNet",
        "    args:",
        "      block: basic",
        "      layers: [1, 1, 1, 1]",
        "      block_inplanes: [16, 32, 64, 128]",
        "      spatial_dims: 2",
        "      n_input_channels: 1",
        "      conv1_t_size: 5",
        "      conv1_t_stride: 2",
        *(["      no_max_pool: true"] if p.side < 128 else []),
        "      num_classes: 2",
        *_comment("  ", "A larger size shows finer findings, and costs time by its square."),
        "  preprocess:",
        f"    - {{name: Resize, args: {{spatial_size: [{p.side}, {p.side}], mode: area}}}}",
        "    - {name: NormalizeIntensity, args: {}}",
        *_comment("  ", "Changes that must not change the label; remove what does."),
        "  augment:",
        *(flip if p.flip else _comment("    ", "No RandFlip: the label tells left from right.")),
        "    - name: RandAffine",
        f"      args: {{prob: 0.8, rotate_range: 0.15, translate_range: [{shift}, {shift}], "
        "scale_range: [0.1, 0.1], padding_mode: border}",
        "    - {name: RandAdjustContrast, args: {prob: 0.5, gamma: [0.7, 1.5]}}",
        f"  max_epochs: {p.epochs}  # a whole run: roughly {p.minutes} min on one CPU core",
        f"  patience: {max(p.epochs * 2 // 3, 3)}",
        "  batch_size: 16",
        "  learning_rate: 0.003",
        "  weight_decay: 0.05",
    ]


def _validation_lines(survey: Survey, p: Proposal) -> list[str]:
    if not p.validation:
        return []
    why = {
        "modalities": "every image says so",
        "minimum_images": f"{survey.usable} can be used",
        "minimum_class_share": "the rarer class is rare",
        "maximum_set_aside_share": "expected: " + ", ".join(survey.set_aside),
        "rows": "some images are small",
        "columns": "some images are small",
    }
    return [
        "validation:",
        *(f"  {name}: {json.dumps(value)}  # {why[name]}" for name, value in p.validation.items()),
        "",
    ]


def _require_enough(s: Survey) -> None:
    fewest = min(s.class_patients)
    if s.patients >= FEWEST_PATIENTS and fewest >= FEWEST_OF_CLASS:
        return
    aside = "; ".join(f"{n} {reason} ({REASONS[reason]})" for reason, n in s.set_aside.items())
    way = (
        "; a network here takes one grey frame, and volumes are kept for other uses of a snapshot "
        "by ingestion.frames: keep, see docs/labels.md"
        if s.set_aside.get("multi_frame", 0) > s.images / 2
        else ""
    )
    raise BadInput(
        f"{s.usable} usable images of {s.patients} patients, {fewest} of them in the smaller "
        f"class of column {s.settings.column!r}, are too few: at least {FEWEST_PATIENTS} patients, "
        f"{FEWEST_OF_CLASS} in each class, are needed to train and to test"
        + (f"; files that cannot be used: {aside}" if aside else "")
        + way
    )


def _fractions(patients: int) -> Fractions:
    """Few patients: a larger test split, or nothing can be shown of what was learned."""
    if patients < 200:
        return Fractions(train=0.5, validation=0.2, test=0.3)
    if patients < 2000:
        return Fractions(train=0.6, validation=0.15, test=0.25)
    return Fractions(train=0.7, validation=0.15, test=0.15)


def _at_least(patients: int, fraction: float) -> int:
    """Of so many, a binomial draw leaves fewer than this once in a thousand times at most."""
    from scipy.stats import binom

    return max(int(binom.ppf(0.001, patients, fraction)), 1)


def _validation(s: Survey) -> dict[str, Any]:
    """Demands on the data that the defaults would make, and that this data cannot meet."""
    found: dict[str, Any] = {}
    default = ValidationConfig()
    if s.complete and set(s.kinds) <= {"DICOM", OTHER} and len(s.modalities) == 1:
        found["modalities"] = list(s.modalities)
    if s.usable < 1.25 * default.minimum_images and s.complete:
        found["minimum_images"] = int(0.8 * s.usable)
    share = min(s.class_images) / s.usable
    if share < 2 * default.minimum_class_share:
        found["minimum_class_share"] = round(share / 2, 4)
    aside = sum(s.set_aside.values()) / s.looked_at
    if aside > 0.8 * default.maximum_set_aside_share:
        found["maximum_set_aside_share"] = min(math.ceil(100 * aside + 2) / 100, 1.0)
    for i, name in enumerate(("rows", "columns")):
        if (least := s.smallest[i]) < getattr(default, name).low:
            found[name] = {"low": least, "high": int(getattr(default, name).high)}
    return found


def _warnings(s: Survey, fractions: Fractions, reachable: float) -> list[str]:
    warnings = []
    if reachable < BOUNDS[0]:
        fewest = round(min(s.class_patients) * fractions.test)
        warnings.append(
            f"the gate will most likely say inconclusive, which does not pass: about {fewest} "
            "patients of the smaller class will be tested on, too few to show that even a good "
            "model is better than chance; bring more patients"
        )
    miss = sum((1 - f) ** n for _, f in fractions for n in s.class_patients)
    if miss > 0.02:
        warnings.append(
            f"the secret draw may leave a split without one of the classes (chance {miss:.0%}); "
            "the run then says so, and other splitting.fractions draw again"
        )
    return warnings


def _name(folder: Path, column: str) -> str:
    folder = folder.resolve()
    if folder.name.lower() in SAYS_NOTHING:
        folder = folder.parent
    words = re.findall(r"[a-z0-9]+", f"{folder.name} {column}".lower())
    return "-".join(words)[:80].rstrip("-") or "model"


def _comment(indent: str, text: str) -> list[str]:
    return textwrap.wrap(text, 100, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ")


def _told(counts: dict[str, int]) -> str:
    return ", ".join(f"{n} {kind}" for kind, n in counts.items())


def _value(text: str) -> str:
    """A text in YAML, quoted where it would be read as something else (no, 1, a: b)."""
    plain = re.fullmatch(r"[A-Za-z0-9_./][A-Za-z0-9_./ -]*", text) and text == text.strip()
    if plain and yaml.safe_load(text) == text:
        return text
    # A literal ${ is what the unnamed variable, which is never set, has by default.
    literal = text.replace("${", "${:-$}{")
    return yaml.safe_dump(literal, default_style='"', allow_unicode=True, width=math.inf).strip()


def as_data(survey: Survey, proposal: Proposal, path: Path) -> dict[str, Any]:
    """Everything for a machine to read."""
    found = asdict(survey) | {"settings": survey.settings.model_dump()}
    return {
        "config": str(path),
        "survey": found,
        "odd": oddities(survey),
        "proposal": asdict(proposal) | {"fractions": proposal.fractions.model_dump()},
    }
