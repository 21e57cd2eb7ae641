"""The chain in Kubeflow's local runner, a process per step. `python kfp_chain.py TEXT first|again`

Artifacts lie in folders of their own, so a component has its own body; a component's source
is cut out of this file, so it stands alone.
"""

import json
import sys
from pathlib import Path
from time import perf_counter

from kfp import dsl, local
from kfp.dsl import Dataset, Input, Output
from link import STEPS

text = Path(sys.argv[1])


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def begin(text: str, after: Output[Dataset]):
    import pathlib

    pathlib.Path(after.path).write_text(pathlib.Path(text).read_text() + "0\n")
    with (pathlib.Path(text).parent / "journal").open("a") as journal:
        journal.write("0\n")


@dsl.component(base_image="python:3.11", install_kfp_package=False)
def extend(number: int, text: str, before: Input[Dataset], after: Output[Dataset]):
    import pathlib

    pathlib.Path(after.path).write_text(pathlib.Path(before.path).read_text() + f"{number}\n")
    with (pathlib.Path(text).parent / "journal").open("a") as journal:
        journal.write(f"{number}\n")


@dsl.pipeline
def chain(text: str):
    made = begin(text=text)
    for number in range(1, STEPS):
        made = extend(number=number, text=text, before=made.outputs["after"])


local.init(
    runner=local.SubprocessRunner(use_venv=False),
    pipeline_root=str(text.with_name("kfp")),
    raise_on_error=True,
    enable_caching=True,
    cache_root=str(text.with_name("kfp-cache")),
)
began = perf_counter()
chain(text=str(text))
print(json.dumps({"seconds": perf_counter() - began}))
