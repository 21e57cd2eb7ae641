"""The chain in Lightbox. `python lightbox_chain.py TEXT first|again [STEPS]`

Every step has a key of its own: settings, inputs by content, environment, and the sources that
the real `train` component reaches, because a component outside the packages would have none.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from link import STEPS
from pydantic import BaseModel

from components.contract import Input, Output, component
from lineage.workspace import Workspace
from pipelines.backends import local
from pipelines.graph import Pipeline, Source, Step


class Settings(BaseModel):
    number: int
    journal: Path


@component()
def extend(config: Settings, before: Input, after: Output) -> None:
    text = before if before.is_file() else before / "text.txt"
    (after / "text.txt").write_text(text.read_text() + f"{config.number}\n")
    with config.journal.open("a") as journal:
        journal.write(f"{config.number}\n")


extend = replace(extend, module="components.train")
text, phase = Path(sys.argv[1]), sys.argv[2]
count = int(sys.argv[3]) if len(sys.argv) > 3 else STEPS
steps = []
for number in range(count):
    before = steps[-1]["after"] if steps else Source("text", str(text))
    settings = Settings(number=number, journal=text.with_name("journal"))
    steps.append(Step(extend, settings, f"step-{number:04}", before=before))
pipeline = Pipeline("chain", steps)
workspace = Workspace(text.with_name("home"))

began = perf_counter()
run = local.run(pipeline, workspace, lambda source: Path(source.uri))
seconds = perf_counter() - began
expected = "reused" if phase == "again" else "ran"
assert run.outcome == "done" and {step.state for step in run.steps} == {expected}
print(json.dumps({"seconds": seconds}))
