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
    approved = [
        review
        for review in reviews
        if review["state"] == "approved"
        and environment in {one["name"] for one in review["environments"]}
    ]
    if not approved:
        sys.exit(
            f"nobody approved this run: environment {environment!r} has no required reviewers. "
            "Set them in the repository's settings; docs/ci.md says how"
        )
    if len(approved) > 1:
        sys.exit("this run was approved more than once: start a new one instead of re-running it")
    comment = " ".join(approved[0]["comment"].split())
    return approved[0]["user"]["login"], comment or "approved without a comment"


if __name__ == "__main__":
    who, why = approval(json.load(sys.stdin), sys.argv[1])
    print(f"who={who}\nwhy={why}")
