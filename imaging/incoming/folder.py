"""A folder of scans."""

import os
from pathlib import Path

from lineage.digest import RECORD
from lineage.errors import BadInput


def find_files(scans: Path) -> list[str]:
    """All files under a folder as relative posix paths, sorted: no file system's order shows."""
    if not scans.is_dir():
        raise BadInput("scans: there is no such directory; name the folder that holds the images")

    def closed(_: OSError) -> None:
        raise BadInput(
            "scans: a folder in it cannot be opened, so the scans in there would be missing without"
            " a word; give yourself the right to read it"
        )

    try:
        walked = list(os.walk(scans, onerror=closed))
    except RecursionError:
        raise BadInput(
            "scans: folders lie within each other a thousand times; move the scans further up"
        ) from None
    found = []
    for folder, below, names in walked:
        # Followed, they could lead in circles, and the step's key would not see what is in there.
        if linked := sum((Path(folder) / name).is_symlink() for name in below):
            are = "a folder in it is a link" if linked == 1 else f"{linked} folders in it are links"
            raise BadInput(
                f"scans: {are}, whose scans would be missing without a word; name their place as "
                "scans, or put the folders themselves there"
            )
        found += [(Path(folder) / name).relative_to(scans).as_posix() for name in names]
    return sorted(file for file in found if file != RECORD)
