"""Ask an app without its sliders: in Jupyter, in a script, or in a test."""

from __future__ import annotations

import dataclasses
import importlib
import math
import types
from typing import Any

from matplotlib.figure import Figure

APPS = ("does_log_n_suffice", "which_topology", "cost_on_phones", "how_stale_is_node_17", "what_compression_saves")

PERCENT = ("share", "target")
"""Settings with a largest value."""


@dataclasses.dataclass(frozen=True, repr=False)
class Answer:
    """What an app says.

    Attributes:
        text: the answer, in Markdown; a notebook shows it.
        figure: its figure.
        values: everything that the app defines, by name.
    """

    text: str
    figure: Figure
    values: dict[str, Any]

    def _repr_markdown_(self) -> str:
        return self.text

    def __repr__(self) -> str:
        """The answer; everything else is in ``values``."""
        return self.text


def ask(app: str, **settings: Any) -> Answer:
    """Run an app with other numbers than its sliders begin with.

    Args:
        app: one of ``APPS``, the name of a file in this folder.
        **settings: names and values of sliders; numbers may lie between the values at which a slider stops, and
            beyond its largest one.

    Raises:
        TypeError: a value is of another kind than those of its slider.
        ValueError: there is no such app, it has no such slider, or a value is none that the slider's law allows.
    """
    if app not in APPS:
        raise ValueError(f"app={app!r}: there are {', '.join(APPS)}")
    module = importlib.import_module(f"notebooks.{app}")
    unknown = sorted(set(settings) - set(module.SETTINGS))
    if unknown:
        raise ValueError(f"{app} has no setting {', '.join(unknown)}; it has {', '.join(module.SETTINGS)}")
    sliders = module.sliders()
    for name, value in settings.items():
        _check(name, value, sliders[name], module.SETTINGS[name])
    controls = types.SimpleNamespace(value=module.SETTINGS | settings)
    _, values = module.app.run(defs={"controls": controls})
    return Answer(values["answer"], values["figure"], dict(values))


def _check(name: str, value: Any, slider: Any, begins: Any) -> None:
    """Check a value against its slider.

    Raises:
        TypeError: a string where there are numbers, a fraction where there are whole numbers, or the other way round.
        ValueError: not one of the names to choose from, no name, or a number below the least one of the slider.
    """
    if hasattr(slider, "options"):
        chosen = value if isinstance(begins, list) else [value]
        if not isinstance(chosen, list) or not chosen or not set(chosen) <= set(slider.options):
            many = "a list of some of" if isinstance(begins, list) else "one of"
            raise ValueError(f"{name}={value!r}: choose {many} {', '.join(slider.options)}")
        return
    kinds = (int,) if isinstance(begins, int) else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(f"{name}={value!r}: must be a {'whole number' if len(kinds) == 1 else 'number'}, as {begins}")
    least, most = (slider.steps[0], slider.steps[-1]) if slider.steps else (slider.start, slider.stop)
    above = name in PERCENT and value > most
    if not math.isfinite(value) or value < least or above:
        raise ValueError(f"{name}={value}: must be {least} or more" + (f", at most {most}" if name in PERCENT else ""))
