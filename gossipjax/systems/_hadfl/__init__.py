"""HADFL: heterogeneity-aware asynchronous training with partial rings, planned event by event.

The algorithm, and where each step stands:

1. Warm-up: every device trains and measures itself (``units._end_unit``); from the seconds of a unit the coordinator
   makes hyperperiod and T_sync (``coordinator._plan_cycles``).
2. Training without waiting, versions that count units: ``units.proceed``, ``units._end_unit``.
3. Forecast of versions and draw of the members: ``coordinator._decide``, with the formulas of ``forecast``.
4. The ring: ``ring.enter``, ``ring._send``, ``ring._arrives``, ``ring._average``.
5. Broadcast, backup, and the merger at the end of a unit: ``broadcast.spread``, ``units._merge``.
6. Failures: ``ring._ask``, ``ring._leave_out``, ``ring._restart``; ``units._die``, ``units._come``,
   ``coordinator.serve_backup``.

``settings`` has the options, ``state`` what a run knows, ``actions`` what several handlers do, ``history`` and
``learning`` what is written down, ``planner`` the function that users call.
"""
