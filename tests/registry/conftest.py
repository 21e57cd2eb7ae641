import pytest
from evidence import prepare_registry

from lineage.workspace import Workspace


@pytest.fixture
def registry_home(home: Workspace) -> Workspace:
    """A workspace whose registry is empty but there."""
    return prepare_registry(home)
