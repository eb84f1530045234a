"""Ask an app without its sliders: in Jupyter, in a script, or in a test."""

from __future__ import annotations

import dataclasses
import importlib
import types
from typing import Any

from matplotlib.figure import Figure

APPS = ("does_log_n_suffice", "which_topology", "cost_on_phones", "how_stale_is_node_17", "what_compression_saves")


@dataclasses.dataclass(frozen=True)
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


def ask(app: str, **settings: Any) -> Answer:
    """Run an app with other numbers than its sliders begin with.

    Args:
        app: one of ``APPS``, the name of a file in this folder.
        **settings: names and values of sliders; they need not be values at which a slider stops.

    Raises:
        ValueError: there is no such app, or it has no such slider.
    """
    if app not in APPS:
        raise ValueError(f"app={app!r}: there are {', '.join(APPS)}")
    module = importlib.import_module(f"notebooks.{app}")
    unknown = sorted(set(settings) - set(module.SETTINGS))
    if unknown:
        raise ValueError(f"{app} has no setting {', '.join(unknown)}; it has {', '.join(module.SETTINGS)}")
    controls = types.SimpleNamespace(value=module.SETTINGS | settings)
    _, values = module.app.run(defs={"controls": controls})
    return Answer(values["answer"], values["figure"], dict(values))
