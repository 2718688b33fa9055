"""Arguments of ``refine``, ``prepare`` and ``iterate`` of a wrong kind, told what was meant.

Words and numbers stand for components on the command line and in other programs; here they would be
carried along, and fail much later, somewhere else.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrelax.geometry import PointGroup
from jaxrelax.imaging import NoiseModel
from jaxrelax.inference import Latent, PoseSearch
from jaxrelax.io import InputError, OutputFolder, Particles
from jaxrelax.reconstruction import MapPrior, StatesPrior
from jaxrelax.refinement.callbacks import Callback
from jaxrelax.refinement.course import Course
from jaxrelax.refinement.criteria import Criterion
from jaxrelax.refinement.modes import Mode
from jaxrelax.refinement.part import Part
from jaxrelax.refinement.reference import Map
from jaxrelax.refinement.relax import Relax
from jaxrelax.refinement.replay import criterion_from_text


class Kind(NamedTuple):
    """A kind of component.

    Attributes:
        classes: what is one.
        what: what it is called.
        usual: how one is written.
        words: what a word stands for, without case and hyphens.
    """

    classes: tuple[type, ...]
    what: str
    usual: str
    words: Mapping[str, str] = {}


KINDS = {
    "mode": Kind(
        (Mode,), "mode", "jr.Local()",
        {
            "local": "jr.Local()",
            "registers": "jr.Registers()",
            "homogeneous": "jr.Homogeneous()",
            "global": "jr.Homogeneous()",
            "classification": 'jr.Classification(["C4:C1", "C4"])',
        },
    ),
    "relax": Kind((Relax, str), "relaxation", 'jr.Relax("C4")'),
    "noise": Kind(
        (NoiseModel,), "noise model", "jr.RadialNoise()",
        {
            "fromimages": "jr.RadialNoise()",
            "radial": "jr.RadialNoise()",
            "white": "jr.RadialNoise(from_images=False)",
            "smooth": "jr.SmoothNoise()",
        },
    ),
    "until": Kind((Criterion,), "criterion", "jr.MaxIterations(30)"),
    "course": Kind(
        (Course,), "course", "jr.refinement.Straight()",
        {
            "straight": "jr.refinement.Straight()",
            "seekamplifysettle": "jr.refinement.SeekAmplifySettle()",
            "seeded": "jr.refinement.Seeded()",
        },
    ),
    "map_prior": Kind(
        (MapPrior, StatesPrior), "map prior", "jr.reconstruction.Isotypic()",
        {
            "isotypic": "jr.reconstruction.Isotypic()",
            "local": "jr.reconstruction.LocalPrior()",
            "plain": "jr.reconstruction.Plain()",
        },
    ),
    "part": Kind((Part,), "part", 'jr.Part("part.mrc")'),
    "out": Kind((OutputFolder,), "output folder", 'jr.OutputFolder.create("out")'),
    "particles": Kind((Particles, str, Path), "table of particles", '"particles.star"'),
}  # fmt: skip
SEVERAL = {
    "latents": Kind((Latent,), "latent variable", ""),
    "callbacks": Kind((Callback,), "callback", ""),
}
WORDS = {
    "normalise": ("auto", "yes", "no"),
    "contrast": ("auto", "white", "black"),
    "subgroups": ("auto", "all", "none"),
}
SWITCHES = {"resume", "force_group", "keep_copies", "skip_bad_images"}
LENGTHS = {"ini_high", "max_alignment_resolution", "particle_diameter"}
MAY_BE_ABSENT = {"mode", "relax", "part", "noise", "until", "course", "map_prior", "out"}


def require_kinds(**given: Any) -> None:
    """Refuse arguments that are not what they are to be, before anything is read.

    Args:
        given: arguments of `refine` by name.

    Raises:
        InputError: names all that are wrong, and what was meant.
    """
    wrong = [text for name, value in given.items() if (text := _wrong(name, value)) is not None]
    if wrong:
        raise InputError("; ".join(wrong))


def _wrong(name: str, value: Any) -> str | None:
    if name in KINDS:
        return None if value is None and name in MAY_BE_ABSENT else _wrong_kind(name, value)
    if name in SEVERAL:
        return _wrong_items(name, value)
    for names, check in CHECKS:
        if name in names:
            return check(name, value)
    raise TypeError(f"{name} is no argument of a refinement")


def _wrong_kind(name: str, value: Any) -> str | None:
    kind = KINDS[name]
    if isinstance(value, kind.classes):
        return None
    is_none = f"{name}={_shown(value)} is no {kind.what}"
    if isinstance(value, type) and issubclass(value, kind.classes):
        return f"{name} is the class {value.__name__} itself; write {name}={value.__name__}(…)"
    place = _place_of(value)
    if place is not None:
        return f"{is_none}; that belongs to {place}"
    return f"{is_none}; write {name}={_meant(name, value) or kind.usual}"


def _meant(name: str, value: Any) -> str | None:
    """What a word or a number stands for; None if nobody knows."""
    number = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if name == "until" and number:
        return f"jr.MaxIterations({int(value)})"
    if name == "until" and callable(value):
        return "Mine(), of a class Mine(jr.Criterion) whose reason(state) says why to stop, or None"
    if name == "until" and isinstance(value, str):
        try:
            criterion_from_text(value)
        except InputError:
            return None
        return f"jr.refinement.criterion_from_text({value!r})"
    if name == "relax":
        group = value.name if isinstance(value, PointGroup) else f"C{value}" if number else None
        return None if group is None else f'"{group}"'
    if name == "out" and isinstance(value, str | Path):
        return f"jr.OutputFolder.create({str(value)!r})"
    if not isinstance(value, str):
        return None
    return KINDS[name].words.get(value.lower().replace("-", "").replace("_", "").replace(" ", ""))


def _place_of(value: Any) -> str | None:
    """The argument to which a component belongs."""
    if isinstance(value, PoseSearch):
        return "a mode: mode=jr.Local(pose_search=…)"
    for name, kind in (KINDS | SEVERAL).items():
        components = tuple(one for one in kind.classes if one not in (str, Path))
        if isinstance(value, components):
            return name
    return None


def _wrong_items(name: str, value: Any) -> str | None:
    kind = SEVERAL[name]
    base = f"jr.{kind.classes[0].__name__}" if name == "callbacks" else "jr.inference.Latent"
    if isinstance(value, kind.classes):
        return f"{name} is a list; write {name}=[…] around the one {type(value).__name__}"
    derive = f"derive a class from {base}, and write {name}=[Mine()]"
    if not isinstance(value, Sequence) or isinstance(value, str):
        return f"{name}={_shown(value)} is no list of {kind.what}s; {derive}"
    for one in value:
        if isinstance(one, type) and issubclass(one, kind.classes):
            return f"{name} holds the class {one.__name__} itself; write {name}=[{one.__name__}(…)]"
        if not isinstance(one, kind.classes):
            return f"{name}: {_shown(one)} is no {kind.what}; {derive}"
    return None


def _wrong_reference(name: str, value: Any) -> str | None:
    if isinstance(value, Map | str | Path):
        return None
    write = "write jr.Map(values, pixel_size_angstrom)"
    if not isinstance(value, Sequence):
        return f"{name}={_shown(value)} is no map and no path; {write}"
    if not value:
        return f"{name} is empty; give the path of a map, or one for every state"
    wrong = [one for one in value if not isinstance(one, Map | str | Path)]
    return f"{name}: {_shown(wrong[0])} is no map and no path; {write}" if wrong else None


def _wrong_symmetry(name: str, value: Any) -> str | None:
    if isinstance(value, str):
        return None
    meant = value.name if isinstance(value, PointGroup) else None
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        meant = f"C{value}"
    return f'{name}={_shown(value)} is no name of a group; write {name}="{meant or "C1"}"'


def _wrong_word(name: str, value: Any) -> str | None:
    words = WORDS[name]
    if isinstance(value, str) and value in words:
        return None
    *first, last = (f'"{word}"' for word in words)
    meant = ""
    if isinstance(value, bool) and {"yes", "no"} <= set(words):
        meant = f'; write {name}="{"yes" if value else "no"}"'
    return f"{name} is {', '.join(first)} or {last}, not {_shown(value)}{meant}"


def _wrong_switch(name: str, value: Any) -> str | None:
    if isinstance(value, bool | np.bool_) or (value is None and name == "skip_bad_images"):
        return None
    return f"{name} is True or False, not {_shown(value)}"


def _wrong_length(name: str, value: Any) -> str | None:
    if value is None:
        return None
    what = "a diameter" if name == "particle_diameter" else "a resolution"
    if not _is_number(value):
        return f"{name} is {what} in Å, a number, not {_shown(value)}"
    if not 0 < float(value) < math.inf:
        return f"{name} is {what} in Å, above 0; got {value}"
    return None


def _wrong_count(name: str, value: Any) -> str | None:
    if isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 0:
        return None
    return f"{name} is a whole number, 0 or above, not {_shown(value)}"


def _wrong_memory(name: str, value: Any) -> str | None:
    if _is_number(value) and 0 <= float(value) < math.inf:
        return None
    return f"{name} is a number of GiB, 0 or above, not {_shown(value)}"


def _wrong_devices(name: str, value: Any) -> str | None:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if value is None or whole or (isinstance(value, str) and value == "all"):
        return None
    return f'{name} is a number of devices or "all", not {_shown(value)}'


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """A value in a message: short, and without addresses."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if value is None or isinstance(value, str | bool | numbers.Number | Path):
        return repr(value) if not isinstance(value, np.generic) else repr(value.item())
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if callable(value) and hasattr(value, "__name__"):
        return f"the function {value.__name__}"
    return f"{type(value).__name__}(…)"


CHECKS: tuple[tuple[set[str], Callable[[str, Any], str | None]], ...] = (
    ({"reference"}, _wrong_reference),
    ({"symmetry"}, _wrong_symmetry),
    (set(WORDS), _wrong_word),
    (SWITCHES, _wrong_switch),
    (LENGTHS, _wrong_length),
    ({"seed", "final_passes"}, _wrong_count),
    ({"cache_gib"}, _wrong_memory),
    ({"devices"}, _wrong_devices),
)
