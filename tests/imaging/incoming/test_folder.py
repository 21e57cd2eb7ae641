from pathlib import Path

import pytest

from imaging.incoming.folder import find_files
from lineage.errors import BadInput


def test_folders_in_folders_without_end_are_told(nested: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="scans: folders lie within each other a thousand times"):
        find_files(tmp_path)
