"""`python -m geoframe` is the command line."""

from geoframe.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
