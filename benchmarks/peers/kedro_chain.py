"""The chain in Kedro: nodes hand paths on in memory. `python kedro_chain.py TEXT first`"""

import json
import sys
from functools import partial
from time import perf_counter

from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline, node
from kedro.runner import SequentialRunner
from link import STEPS, link

nodes = [
    node(partial(link, number=n), f"path{n}", f"path{n + 1}", name=f"step{n}") for n in range(STEPS)
]
catalog = DataCatalog({"path0": MemoryDataset(sys.argv[1])})

began = perf_counter()
SequentialRunner().run(Pipeline(nodes), catalog)
print(json.dumps({"seconds": perf_counter() - began}))
