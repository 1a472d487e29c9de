"""Papers and questions re-run with geoframe; one folder each. Not installed with the library."""
