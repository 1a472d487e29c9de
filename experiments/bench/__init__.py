"""Side-by-side speed, at equal accuracy: `python -m experiments.bench.NAME [--json FILE]`."""
