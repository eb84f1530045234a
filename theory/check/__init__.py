"""Executable claims: theorems that predict numbers, simulations that measure them, and verdicts with their confidence.

The formulas of :mod:`theory` do not use the engine; only this package uses both.
"""

from .claim import Assumption as Assumption
from .claim import Claim as Claim
from .claim import Observation as Observation
from .claim import each as each
from .judge import Result as Result
from .judge import judge as judge
from .judge import pool as pool
from .run import check as check
from .run import claims as claims
from .run import run_claim as run_claim
from .run import select as select
