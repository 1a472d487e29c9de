"""geoframe: geometry-first dense correspondence."""

__version__ = "0.1.0"
