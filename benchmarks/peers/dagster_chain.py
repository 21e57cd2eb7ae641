"""The chain in Dagster: ops hand paths on in memory. `python dagster_chain.py TEXT first`"""

import json
import sys
from pathlib import Path
from time import perf_counter

from dagster import DagsterInstance, job, op
from link import STEPS, link

began = 0.0


@op
def text() -> str:
    return sys.argv[1]


def step(number):
    @op(name=f"step{number}")
    def extend(before: str) -> str:
        return link(before, number)

    return extend


@job
def chain():
    path = text()
    for number in range(STEPS):
        path = step(number)(path)


# An instance on disk keeps the event log of the run, as a user's does.
home = Path(sys.argv[1]).with_name("dagster")
home.mkdir(exist_ok=True)
(home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
with DagsterInstance.from_config(str(home)) as instance:
    began = perf_counter()
    assert chain.execute_in_process(instance=instance).success
    print(json.dumps({"seconds": perf_counter() - began}))
