from types import SimpleNamespace

import pytest

from components.ingest import ingest
from imaging.config import IngestionConfig, Labels
from lineage.errors import BadInput
from pipelines.graph import Pipeline, Source, Step
from pipelines.submitting.placing import places

LABELS = Labels(key="file", key_column="file", column="finding", classes=("no", "yes"))
SAGEMAKER = SimpleNamespace(name="sagemaker", given={}, schemes=("s3",), content=lambda uri: "d")


@pytest.mark.parametrize("upload", [False, True])
def test_an_archive_is_refused_with_the_way_out_and_nothing_is_asked_of_it(home, upload) -> None:
    scans = Source("scans", "dicomweb+http://127.0.0.1:9/rs?Modality=CR")
    labels = Source("labels", "s3://scans/labels.csv")
    config = IngestionConfig(labels=LABELS)
    step = Step(ingest, config, scans=scans, labels=labels)
    told = (
        r"sources\.scans: sagemaker does not read dicomweb\+http://…, only s3://….*lightbox fetch"
    )
    with pytest.raises(BadInput, match=told):
        places(Pipeline("p", [step]), SAGEMAKER, home, upload=upload)
    assert not home.home.exists()
