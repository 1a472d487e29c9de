"""The documentation's settings; `make docs` builds it, warnings are errors."""

import geoframe

project, version = "geoframe", geoframe.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
autodoc_typehints = "none"
napoleon_use_ivar = True
exclude_patterns = ["_build"]
suppress_warnings = ["ref.python"]  # two classes may have attributes of one name
