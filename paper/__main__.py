"""``python -m paper write``: numbers.tex. ``check``: refuse missing and stale numbers. ``build``: figures and PDF."""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys

from paper import figures, numbers, source
from paper.spec import NUMBERS, VERDICTS

HERE = pathlib.Path(__file__).parent.resolve()
FOLDERS = (HERE, HERE / "build", HERE.parent / "gossipjax")
"""Where TeX finds the text, the figures and the references."""
PACKAGES = (
    "Debian and Ubuntu: apt install latexmk lmodern texlive-latex-recommended texlive-fonts-recommended; macOS: MacTeX"
)
INSTALL = (
    f"there is no latexmk, tectonic or pdflatex: install TeX Live ({PACKAGES}) or tectonic; "
    "the numbers, the figures and the text are checked"
)


def commands() -> list[list[str]] | None:
    """Return what makes the PDF with the programs that are here; None if there are none."""
    if shutil.which(
        "latexmk"
    ):  # -g: also after an error, whose cause, such as a package that was missing, it does not see
        return [["latexmk", "-g", "-pdf", "-interaction=nonstopmode", "-halt-on-error", "-outdir=build", "paper.tex"]]
    if shutil.which("tectonic"):
        where = [word for folder in FOLDERS for word in ("-Z", f"search-path={folder}")]
        return [["tectonic", *where, "--outdir", "build", "paper.tex"]]
    if shutil.which("pdflatex") and shutil.which("bibtex"):
        tex = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-output-directory=build", "paper.tex"]
        return [tex, ["bibtex", "build/paper"], tex, tex, tex]
    return None


def build() -> str:
    """Check everything, then make ``build/paper.pdf``; return what to tell the user.

    Raises:
        ValueError: a number is missing or stale, the text has faults, or TeX failed; its log is in ``paper/build``.
    """
    numbers.check(NUMBERS, VERDICTS)
    source.check(figures.DRAWN)
    figures.write()
    programs = commands()
    if programs is None:
        return INSTALL
    paths = dict.fromkeys(("TEXINPUTS", "BIBINPUTS"), os.pathsep.join([*map(str, FOLDERS), ""]))
    log = HERE / "build" / "paper.log"
    log.unlink(missing_ok=True)
    for words in programs:
        done = subprocess.run(
            words, cwd=HERE, env=os.environ | paths, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if done.returncode:
            raise ValueError(f"{words[0]} ended with status {done.returncode}: {first_error(log)}")
    return f"wrote {HERE / 'build' / 'paper.pdf'}"


def first_error(log: pathlib.Path) -> str:
    """Return what TeX says first of what is wrong, and what to do if a package is not installed."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    error = next((line.removeprefix("! ") for line in lines if line.startswith("! ")), f"see {log}")
    packages = re.fullmatch(r"LaTeX Error: File `(.+)' not found\.", error)
    return f"{error} Install it: {PACKAGES}" if packages else error


def main() -> int:
    """Run a command; an error names what to do."""
    parser = argparse.ArgumentParser(prog="python -m paper", description=__doc__)
    parser.add_argument("command", choices=("write", "check", "build"))
    command = parser.parse_args().command
    try:
        if command == "write":
            numbers.TARGET.write_text(numbers.text_of(NUMBERS, VERDICTS), encoding="utf-8")
        elif command == "check":
            numbers.check(NUMBERS, VERDICTS)
            source.check(figures.DRAWN)
            figures.staleness_points()
        else:
            print(build())
    except ValueError as error:
        print(f"paper: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
