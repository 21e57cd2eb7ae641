"""Who approved this job, from what GitHub's API tells of the environment that it waited for.

Reads the answer of GET /repos/OWNER/REPO/actions/runs/RUN/approvals; prints NAME=VALUE lines for
later steps. Without required reviewers nobody approves, and then nothing may be released.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any


def approval(reviews: Sequence[Mapping[str, Any]], environment: str) -> tuple[str, str]:
    """Login of the reviewer who let the job through, and the comment on one line."""
    for review in reviews:  # the newest first
        named = {one["name"] for one in review["environments"]}
        if environment in named and review["state"] == "approved":
            comment = " ".join(review["comment"].split())
            return review["user"]["login"], comment or "approved without a comment"
    sys.exit(
        f"nobody approved this run: environment {environment!r} has no required reviewers. "
        "Set them in the repository's settings; docs/ci.md says how"
    )


if __name__ == "__main__":
    who, why = approval(json.load(sys.stdin), sys.argv[1])
    print(f"who={who}\nwhy={why}")
