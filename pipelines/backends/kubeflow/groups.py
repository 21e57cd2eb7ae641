"""What groups of tasks are called: they end as what they hold does, and are no tasks themselves."""

import re

# With a colon, which no step's name has; the lowering puts it before a condition, or the pipeline.
IF, RUN = "if:", "run:"
# An API lists groups by these names or by KFP's own; and each task's driver, and the pod within.
GROUP = re.compile(
    rf"({IF}|{RUN}) .*|root|(condition|condition-branches|exit-handler|for-loop)-\d+|"
    r"iteration-\d+|executor(\(\d+\))?"
)
