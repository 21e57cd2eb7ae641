"""The physical limit: ten plain calls. `python plain_chain.py TEXT first`"""

import json
import sys
from time import perf_counter

from link import STEPS, link

text = sys.argv[1]
began = perf_counter()
for number in range(STEPS):
    text = link(text, number)
print(json.dumps({"seconds": perf_counter() - began}))
