"""Cards of all experiments and of all families of claims, made from the files themselves."""

import ast
import collections
import importlib
import re
import typing

from benchmarks.tables import ROOT, VERDICT, claims_of_last_run, cost_of, files_of, seconds_of_claims, verdicts_of


class Picture(typing.NamedTuple):
    """The picture of a card: where it is, from the folder of the pages on, what it shows, and what its run took."""

    path: str
    words: str
    seconds: float | None = None


def constant(tree, name):
    """Return a constant of a module, from its source; None if there is none."""
    for node in tree.body:
        targets = getattr(node, "targets", [])
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return ast.literal_eval(node.value)
    return None


def reference(docstring):
    """Return the reference at the end of a docstring, with links to arXiv; an empty text if there is none."""
    found = re.search(r"Reference: (.*)", docstring, re.S)
    text = "" if found is None else " ".join(found[1].split())
    return re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", text)


def experiments():
    """Return the file of every experiment, by stem."""
    return {path.stem: path for path in sorted((ROOT / "experiments").glob("[!_]*.py"))}


def card_of_experiment(stem, path, picture=None):
    """Write the card of an experiment, with its picture if there is one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    doc = ast.get_docstring(tree)
    lines = [f":::::{{grid-item-card}} `{stem}`"]
    claim = constant(tree, "CLAIM")
    lines += ["", f"{doc.splitlines()[0]}", "", f"*Claim:* {claim[0].upper()}{claim[1:]}.", ""]
    lines += [f"{reference(doc)}", ""] if reference(doc) else []
    lines += measured(stem, files_of(stem))
    if picture and picture.seconds is not None:
        lines += [f"*Cost:* {picture.seconds:.0f} s in the quick form, when this page was made.", ""]
    lines += ["```sh", f"python -m experiments run {stem} --quick", f"python -m figures {stem}", "```", ""]
    return "\n".join([*lines, *(shown(picture) if picture else []), ":::::"])


def shown(picture):
    """Write a picture, which leads to itself at full size, and what it shows."""
    name = picture.path.rpartition("/")[2]
    lines = [f"```{{image}} {picture.path}", f":alt: {picture.words}", f":target: _images/{name}", "```", ""]
    return [*lines, f"*Picture:* {picture.words}.", ""]


def measured(stem, files):
    """Write which files have results, and the verdicts of the last of them; nothing if there are none."""
    if not files:
        return []
    links = [f"{{download}}`{each.stem} </../benchmarks/results/{each.name}>`" for each in files]
    lines, table = [f"*Measured:* {', '.join(links)}", ""], verdicts_of(stem, files[-1])
    if cost := cost_of(stem, files[-1]):
        lines += [f"*Cost:* {cost}.", ""]
    if table:
        counts = collections.Counter(verdict_of(row) for row in table[2:])
        title = ", ".join(f"{count} {word}" for word, count in counts.items())
        lines += [f"::::{{dropdown}} {title}", ":::{div} measured", *table, ":::", f"From `{files[-1].name}`."]
        lines += ["::::", ""]
    return lines


def verdict_of(row):
    """Return the verdict of a row of a table, which stands in its last column, or in one before."""
    return [word for cell in row.split("|") for word in VERDICT.findall(cell)[:1]][-1]


def card_of_family(family):
    """Write the card of a family of claims, with the verdicts of the last run in full."""
    path = ROOT / "theory" / "check" / "claims" / f"{family}.py"
    claims = importlib.import_module(f"theory.check.claims.{family}").CLAIMS
    about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).splitlines()[0]
    file, judged = claims_of_last_run()
    words = {claim.name: judged.get(claim.name, "newer") for claim in claims}
    counts = ", ".join(f"{word}: {count}" for word, count in collections.Counter(words.values()).items())
    lines = [f":::::{{grid-item-card}} `{family}`: {len(claims)} claims", "", about, ""]
    if set(words.values()) != {"newer"}:
        lines += [f"*Measured:* {{download}}`{file.stem} </../benchmarks/results/{file.name}>`", ""]
        seconds = sum(seconds for name, seconds in seconds_of_claims().items() if name in words)
        lines += [f"*Cost:* {seconds} s in full on two cores, without what the claims share.", ""]
    lines += [f":::{{dropdown}} {counts}"]
    lines += [f"`{claim.name}` ({words[claim.name]})\n: {claim.statement.strip()}\n" for claim in claims]
    return "\n".join([*lines, ":::", "", "```sh", f"python -m theory check {family}", "```", ":::::"])
