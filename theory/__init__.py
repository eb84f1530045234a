"""Formulas that simulations are checked against: float64 NumPy and SciPy on plain arrays.

Nothing here imports the engine, so that a fault of the engine cannot leak into its own oracle.

The wheel holds this package as ``gossipjax_theory``.
"""
