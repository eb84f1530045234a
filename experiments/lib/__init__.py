"""What experiments share: problems, kept runs, budgets, curves and reports."""
