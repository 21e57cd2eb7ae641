"""The chain in redun: tasks hand files on by digest. `python redun_chain.py TEXT first|again`"""

import json
import sys
from pathlib import Path
from time import perf_counter

from link import STEPS, link
from redun import File, Scheduler, task
from redun.config import Config

redun_namespace = "chain"


@task()
def extend(before: File, number: int) -> File:
    return File(link(before.path, number))


@task()
def chain(text: File) -> File:
    for number in range(STEPS):
        text = extend(text, number)
    return text


database = Path(sys.argv[1]).with_name("redun.db")
scheduler = Scheduler(config=Config({"backend": {"db_uri": f"sqlite:///{database}"}}))
scheduler.load()
began = perf_counter()
scheduler.run(chain(File(sys.argv[1])))
print(json.dumps({"seconds": perf_counter() - began}))
