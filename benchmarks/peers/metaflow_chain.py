"""The chain in Metaflow, a process per step.

`TEXT=… python metaflow_chain.py run` and `… resume`; the text comes by the environment, because
every step's process runs this file with arguments of Metaflow's own.
"""

import json
import os
import sys
from time import perf_counter

from link import link
from metaflow import FlowSpec, step


class Chain(FlowSpec):
    @step
    def start(self):
        self.path = link(os.environ["TEXT"], 0)
        self.next(self.one)

    @step
    def one(self):
        self.path = link(self.path, 1)
        self.next(self.two)

    @step
    def two(self):
        self.path = link(self.path, 2)
        self.next(self.three)

    @step
    def three(self):
        self.path = link(self.path, 3)
        self.next(self.four)

    @step
    def four(self):
        self.path = link(self.path, 4)
        self.next(self.five)

    @step
    def five(self):
        self.path = link(self.path, 5)
        self.next(self.six)

    @step
    def six(self):
        self.path = link(self.path, 6)
        self.next(self.seven)

    @step
    def seven(self):
        self.path = link(self.path, 7)
        self.next(self.eight)

    @step
    def eight(self):
        self.path = link(self.path, 8)
        self.next(self.end)

    @step
    def end(self):
        self.path = link(self.path, 9)


began = perf_counter()
try:
    Chain()  # does not return: it exits with the outcome of the command
finally:
    if {"run", "resume"} & set(sys.argv):  # not in the process of a step
        print(json.dumps({"seconds": perf_counter() - began}))
