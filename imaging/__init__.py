"""DICOM and data sets: reading, de-identification, the manifest, statistics, splits."""
