"""Code that experiments share: problems, stored runs, budgets, curves and reports."""
