"""Side-by-side speed: ours and a peer in one process, at equal accuracy. Run as `python -m experiments.bench.NAME`."""
