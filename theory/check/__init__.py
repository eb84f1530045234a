"""Executable claims: theorems that predict numbers, simulations that measure them, verdicts with their confidence.

The formulas of :mod:`theory` do not know the engine; only this package uses both.
"""

from theory.check.claim import Assumption as Assumption
from theory.check.claim import Claim as Claim
from theory.check.claim import Observation as Observation
from theory.check.claim import each as each
from theory.check.judge import Result as Result
from theory.check.judge import judge as judge
from theory.check.judge import pool as pool
from theory.check.run import check as check
from theory.check.run import claims as claims
from theory.check.run import run_claim as run_claim
from theory.check.run import select as select
