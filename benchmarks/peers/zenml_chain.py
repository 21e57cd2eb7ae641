"""The chain in ZenML, local stack. `python zenml_chain.py TEXT first|again`"""

import json
import sys
from time import perf_counter

from link import STEPS, link
from zenml import pipeline, step


@step(enable_cache=True)
def extend(before: str, number: int) -> str:
    return link(before, number)


@pipeline(enable_cache=True)
def chain(text: str):
    for number in range(STEPS):
        text = extend(text, number)


began = perf_counter()
chain(sys.argv[1])
print(json.dumps({"seconds": perf_counter() - began}))
