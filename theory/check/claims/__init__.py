"""The claims, a module per family, which lists them in ``CLAIMS``.

Modules whose names begin with an underscore are parts of families: runs that claims share, or one topic of a family.
"""
