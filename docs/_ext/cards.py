"""Cards of all experiments and of all families of claims, made from the files themselves."""

import ast
import importlib
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]


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


def tables():
    """Return the files of benchmarks/results that have a table of an experiment, by stem."""
    found = {}
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        for stem in experiments():
            if re.search(rf"^## `?{stem}`?$", text, re.M) or re.search(rf"run {stem}`", text[:1000]):
                found.setdefault(stem, []).append(path)
    return found


def experiments():
    """Return the file of every experiment, by stem."""
    return {path.stem: path for path in sorted((ROOT / "experiments").glob("[!_]*.py"))}


def card_of_experiment(stem, path, results):
    """Write the card of an experiment."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    doc = ast.get_docstring(tree)
    lines = [f"::::{{grid-item-card}} `{stem}`"]
    if (ROOT / "docs" / f"{stem}.png").is_file():
        lines.append(f":img-bottom: /{stem}.png")
    claim = constant(tree, "CLAIM")
    lines += ["", f"{doc.splitlines()[0]}", "", f"*Claim:* {claim[0].upper()}{claim[1:]}.", ""]
    lines += [f"{reference(doc)}", ""] if reference(doc) else []
    links = [f"{{download}}`{each.stem} </../benchmarks/results/{each.name}>`" for each in results]
    lines += [f"*Measured:* {', '.join(links)}", ""] if links else []
    lines += ["```sh", f"python -m experiments run {stem} --quick", f"python -m figures {stem}", "```", "::::"]
    return "\n".join(lines)


def card_of_family(family):
    """Write the card of a family of claims."""
    path = ROOT / "theory" / "check" / "claims" / f"{family}.py"
    claims = importlib.import_module(f"theory.check.claims.{family}").CLAIMS
    about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).splitlines()[0]
    rows = [f"`{claim.name}`\n: {claim.statement.strip()}\n" for claim in claims]
    lines = [f"::::{{grid-item-card}} `{family}`: {len(claims)} claims", "", about, "", ":::{dropdown} Claims", *rows]
    return "\n".join([*lines, ":::", "", "```sh", f"python -m theory check {family}", "```", "::::"])
