"""What a step's result depends on, and what of it differs from the last time.

The key of a result is the digest of its parts; what is missing among them makes a stale hit.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lineage import code
from lineage.digest import RECORD, digest, file_digest
from lineage.workspace import Workspace
from pipelines.graph import Port, Source, Step

Parts = dict[str, Any]
SOME = 4  # differences told in a line; the record holds all


@dataclass(frozen=True)
class Difference:
    """One part of a key that is not as it was; digests are cut to 12 digits."""

    part: str  # config, code, inputs, environment, secrets, step
    name: str  # a dotted setting, a source file, an input, a package pin …
    before: Any
    after: Any

    def __str__(self) -> str:
        if self.part == "config" and self.name:
            before, after = _short(self.before), _short(self.after)
            if before == after:  # 1 and "1"
                before, after = json.dumps(self.before), json.dumps(self.after)
            return f"{self.name} {before} → {after}"
        if self.part == "inputs":
            return f"{self.name} changed"
        if self.part == "code":
            what = "no longer used" if self.after is None else "edited"
            return f"{self.name} {what}" if self.name else "another image"
        return f"{' '.join((self.part, self.name)).strip()} changed"


def key_parts(step: Step, contents: dict[str, str], workspace: Workspace) -> Parts:
    """All that the result of a step depends on, given the digests of its inputs."""
    component = step.component
    return {  # in the order in which people want to hear of it
        "step": component.name,
        "config": step.config.model_dump(mode="json"),
        "inputs": contents,
        "secrets": {name: workspace.fingerprint(name) for name in component.secrets},
        "environment": code.environment(),
        "code": code.code_digest(component.module),
    }


def settled(step: Step, contents: dict[str, str], paths: dict[str, Path]) -> dict[str, str]:
    """The digests of inputs, where what an output may replace goes by its name once it holds
    nothing but files of it."""
    for name, origin in step.inputs.items():
        if isinstance(origin, Source) and origin.replaced_by:
            subject = next(n for n, o in step.inputs.items() if o == origin.replaced_by)
            if contents[subject] != contents[name] and _is_part(paths[name], paths[subject]):
                contents = {**contents, name: contents[subject]}
    return contents


def _is_part(part: Path, whole: Path) -> bool:
    if not (part.is_dir() and whole.is_dir()):
        return False
    names = [p.relative_to(part) for p in part.rglob("*") if p.is_file() and p.name != RECORD]
    return bool(names) and all(
        (whole / name).is_file() and file_digest(part / name) == file_digest(whole / name)
        for name in names
    )


def looked_up_as(step: Step, parts: Parts) -> list[str]:
    """The names under which a result may stand, the best first."""
    own = digest("step", parts)
    rival, before = _comparison(step, parts)
    return [before, own] if rival == "itself" else [own]


def kept_as(step: Step, parts: Parts) -> list[str]:
    """The names under which a result is kept."""
    own = digest("step", parts)
    rival, before = _comparison(step, parts)
    return [own, before] if rival == "another" else [own]


def _comparison(step: Step, parts: Parts) -> tuple[str, str]:
    """Whether a step compares its subject with another or with itself, and the name of its last
    comparison with another; see `graph.Source.replaced_by`."""
    origins, contents = step.inputs, parts["inputs"]
    for name, origin in origins.items():
        if isinstance(origin, Source) and origin.replaced_by:
            subject = next(n for n, o in origins.items() if o == origin.replaced_by)
            rival = "itself" if contents[subject] == contents[name] else "another"
            inputs = {**contents, name: "the one before"}
            return rival, digest("step", {**parts, "inputs": inputs})
    return "none", ""


def sources_of(step: Step) -> dict[str, str]:
    """The files behind a key's `code` part, by digest, so that a difference can be named."""
    return code.sources(step.component.module)


def differences(step: Step, parts: Parts, last: dict[str, Any] | None) -> list[Difference]:
    """What differs from a step's last result in this store; empty if nothing does."""
    if last is None:
        return []
    found: list[Difference] = []
    for part, new in parts.items():
        old = last["parts"].get(part)
        if part == "code" and new != old:
            new, old = sources_of(step), last["sources"]
        before, after = flat(old), flat(new)
        changed = [n for n in {**before, **after} if not same(before.get(n), after.get(n))]
        cut = 12 if part != "config" else None
        found += [
            Difference(part, n, _cut(before.get(n), cut), _cut(after.get(n), cut)) for n in changed
        ]
        if not changed and not same(parts[part], last["parts"].get(part)):  # nothing with a name
            found.append(Difference(part, "", None, None))
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values count as one in a key; to Python 1, 1.0 and true are equal."""
    return digest("part", one) == digest("part", other)


def why(step: Step, found: list[Difference], *, first: bool) -> str:
    """The same in a few words, such as `learning_rate 0.001 → 0.003; training/fit.py edited`."""
    if first:
        return "first time"
    words = []
    for difference in found:
        origin = step.inputs.get(difference.name) if difference.part == "inputs" else None
        maker = f" (by {origin.step.name})" if isinstance(origin, Port) else ""
        words.append(f"{difference}{maker}")
    if len(words) > SOME:
        words[SOME:] = [f"and {len(words) - SOME} more"]
    return "; ".join(words) or "unchanged"


def as_dicts(found: list[Difference]) -> list[dict[str, Any]]:
    """For the run's record."""
    return [asdict(difference) for difference in found]


def flat(value: Any, above: str = "") -> dict[str, Any]:
    """Nested mappings as dotted names; lists stay whole, because their items have no names."""
    if not isinstance(value, dict):
        return {above: value}
    found: dict[str, Any] = {}
    for name, item in value.items():
        found |= flat(item, f"{above}.{name}" if above else name)
    return found


def _cut(value: Any, digits: int | None) -> Any:
    return value[:digits] if digits and isinstance(value, str) else value


def _short(value: Any, most: int = 40) -> str:
    text = "none" if value is None else str(value) or "empty"
    return text if len(text) <= most else text[: most - 1] + "…"
