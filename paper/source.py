"""Check the text without TeX: files, braces, environments, labels, citations, macros, and numbers that were typed."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable

HERE = pathlib.Path(__file__).parent
BIBLIOGRAPHIES = (HERE.parent / "gossipjax" / "references.bib", HERE / "more.bib")
KNOWN = frozenset(
    r"""documentclass usepackage newtheorem newcommand input title author date begin end maketitle bibliographystyle
    bibliography mathbb texttt textbf emph item section subsection paragraph label ref eqref citep citet
    includegraphics caption centering footnotesize setlength tabcolsep hline leftarrow sum dots max emptyset
    neq cap qquad quad ell circ le ge text frac ln sim surd pm times alpha gamma lambda Omega textasciicircum
    textbackslash sqrt colon emergencystretch noindent lfloor rfloor lceil rceil mu rho varepsilon""".split()
)
"""Macros of LaTeX and of the packages in ``paper.tex`` that the text uses."""


def source(main: pathlib.Path = HERE / "paper.tex") -> str:
    """Return the whole text, without comments.

    Raises:
        ValueError: a file of ``\\input`` is missing.
    """
    text = re.sub(r"(?<!\\)%.*", "", main.read_text(encoding="utf-8"))

    def included(match: re.Match[str]) -> str:
        path = main.parent / match[1]
        path = path if path.suffix else path.with_suffix(".tex")
        if not path.is_file():
            raise ValueError(f"\\input{{{match[1]}}}: there is no {path}")
        return source(path)

    return re.sub(r"\\input\{([^}]*)\}", included, text)


def faults(text: str, results: str = "") -> list[str]:
    """Return what TeX would stumble over, or would print as a question mark.

    Args:
        text: the whole text.
        results: the part in which no number with a decimal point may be typed; it must come from a table.
    """
    return [
        *_unbalanced(text),
        *_references(text),
        *_citations(text),
        *_macros(text),
        *(f"a typed number: {found}" for found in re.findall(r"(?<!\w)\d+\.\d+", results)),
        *(f"a character that is not ASCII: {sign}" for sign in sorted({sign for sign in text if not sign.isascii()})),
    ]


def _unbalanced(text: str) -> list[str]:
    found, depth = [], 0
    for sign in re.findall(r"\\.|[{}]", text, re.S):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if depth < 0:
            return ["a brace } without {"]
    if depth:
        found.append(f"{depth} braces {{ without }}")
    if len(re.findall(r"(?<!\\)\$", text)) % 2:
        found.append("an odd number of $")
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+\*?)\}", text):
        if kind == "begin":
            opened.append(name)
        elif not opened or opened.pop() != name:
            return [*found, f"\\end{{{name}}} without its \\begin"]
    return [*found, *(f"\\begin{{{name}}} without \\end" for name in opened)]


def _references(text: str) -> list[str]:
    labels = re.findall(r"\\label\{([^}]*)\}", text)
    used = set(re.findall(r"\\(?:eq)?ref\{([^}]*)\}", text))
    return [
        *(f"\\ref{{{name}}} without a label" for name in sorted(used - set(labels))),
        *(f"label {name} stands there twice" for name in sorted({name for name in labels if labels.count(name) > 1})),
    ]


def _citations(text: str) -> list[str]:
    entries = [
        key
        for path in BIBLIOGRAPHIES
        for key in re.findall(r"^@\w+\{([^,]+),", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    cited = {key.strip() for keys in re.findall(r"\\cite[pt]\{([^}]*)\}", text) for key in keys.split(",")}
    own = set(re.findall(r"^@\w+\{([^,]+),", BIBLIOGRAPHIES[-1].read_text(encoding="utf-8"), re.MULTILINE))
    return [
        *(f"\\cite{{{key}}} is in no bibliography" for key in sorted(cited - set(entries))),
        *(f"{key} is in two bibliographies" for key in sorted({key for key in entries if entries.count(key) > 1})),
        *(f"{key} of more.bib is not cited" for key in sorted(own - cited)),
    ]


def _macros(text: str) -> list[str]:
    defined = re.findall(r"\\newcommand\{\\(\w+)\}", text)
    body = re.sub(r"\\newcommand\{\\\w+\}", "", text)
    used = set(re.findall(r"\\([A-Za-z]+)", body))
    return [
        *(f"\\{name} is not defined" for name in sorted(used - set(defined) - KNOWN)),
        *(f"\\{name} is defined and not used" for name in sorted(set(defined) - used)),
        *(f"\\{name} is defined twice" for name in sorted({name for name in defined if defined.count(name) > 1})),
    ]


def check(figures: Iterable[str]) -> None:
    """Refuse a text with faults.

    Args:
        figures: names of the files that are drawn.

    Raises:
        ValueError: all of them.
    """
    measured = "".join(path.read_text(encoding="utf-8") for path in sorted((HERE / "sections").glob("*.tex")))
    found = faults(source(), measured)
    missing = set(re.findall(r"\\includegraphics\{([^}]*)\}", source())) - set(figures)
    found += [f"\\includegraphics{{{name}}}: paper/figures.py does not draw it" for name in sorted(missing)]
    if found:
        raise ValueError("paper.tex: " + "; ".join(found))
