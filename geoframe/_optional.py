"""Optional packages: imported where they are used, with the remedy in the error."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, *, extra: str) -> ModuleType:
    """Import `module` or raise `ImportError` that names the extra which installs it.

    The original error is kept as the cause. Defaults never depend on what is installed: a caller asks for
    an optional package only when the user asked for what needs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as err:
        raise ImportError(
            f"{module} is needed here and could not be imported ({err}); "
            f"install it with: pip install 'geoframe[{extra}]'"
        ) from err
