"""What an image is taken to show: tables, FHIR reports, masks."""
