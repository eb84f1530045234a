"""The README's example as a program: ``python tests/lib/readme.py README.md`` prints its Python blocks, in order."""

import pathlib
import re
import sys


def python_blocks(path: pathlib.Path) -> list[str]:
    """Return the Python code blocks of a Markdown file, and the code cells of an executed page."""
    block = re.compile(r"^```(?:python|\{code-cell\})\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
    return block.findall(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    print("\n".join(python_blocks(pathlib.Path(sys.argv[1]))))
