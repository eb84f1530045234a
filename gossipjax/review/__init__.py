"""Is a claim about a protocol sound? Twelve questions of a reviewer, answered by runs.

:func:`run` reads a module with a protocol, its grid and one claim, tunes it and its baselines alike, and answers with
pass, fail or not applicable, with intervals, a page and an archive from which any cell runs again (:func:`rerun`).
:func:`compare` and :func:`seeds_needed` are its statistics, for comparisons of your own.
"""

from gossipjax.review._archive import Rerun as Rerun
from gossipjax.review._archive import rerun as rerun
from gossipjax.review._bench import Budget as Budget
from gossipjax.review._report import Review as Review
from gossipjax.review._review import run as run
from gossipjax.review._row import Row as Row
from gossipjax.review._statistics import Comparison as Comparison
from gossipjax.review._statistics import compare as compare
from gossipjax.review._statistics import seeds_needed as seeds_needed

__all__ = [name for name in dir() if not name.startswith("_")]
