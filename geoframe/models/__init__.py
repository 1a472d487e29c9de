"""Published systems by name, each a thin assembly of layers."""
