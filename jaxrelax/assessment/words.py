"""Numbers and settings of a result in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jaxrelax.refinement.result import Result


def percent(fraction: float) -> str:
    """``78 %``; one decimal close to 0 and 1, where it matters, and never a false 100 %."""
    if 0.9995 <= fraction < 1.0:
        return "> 99.9 %"
    return f"{100 * fraction:.1f} %" if not 0.05 < fraction < 0.95 else f"{100 * fraction:.0f} %"


def relaxation_setting(result: Result, name: str) -> str | None:
    """A field of the relaxation that was asked for, None where the settings do not tell."""
    return relaxation_field(result.settings, name)


def relaxation_field(settings: Mapping[str, Any], name: str) -> str | None:
    """The same of settings alone, as ``result.json`` has them.

    They hold it as fields or as the text ``Relax(group='C4', …)``.
    """
    relax = settings.get("relax")
    if isinstance(relax, str):
        relax = dict(re.findall(r"(\w+)='([^']*)'", relax))
    value = relax.get(name) if isinstance(relax, dict) else None
    return None if value is None else str(value)
