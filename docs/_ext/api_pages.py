"""The reference: one page per room with every public name, made from the packages, so that none can be missing."""

import functools
import importlib
import inspect
import pathlib
import re

ROOMS = (
    "topology", "mixing", "timeline", "timeline.overlays", "timeline.activity", "timeline.losses", "timeline.clocks",
    "timeline.flights", "protocol", "sharing", "compress", "compress.transforms", "compress.codes", "tasks", "observe",
    "devices", "systems", "deploy", "privacy", "robust", "wrappers", "results", "sweeps", "learn", "design", "predict",
    "review", "testing",
    "decentralizepy", "types", "facts", "placement",
)  # fmt: skip
CONSTANTS = {"types": ("NOBODY",), "sharing": ("EVERYONE",)}


def public(module):
    """Return the public names of a room and what they stand for, without what it imports from elsewhere."""
    listed = getattr(module, "__all__", None)
    names = listed or [name for name in vars(module) if not name.startswith("_")]
    home = "gossipjax" if listed else module.__name__
    return {name: getattr(module, name) for name in names if _is_documented(getattr(module, name), home)}


def _is_documented(thing, home):
    of = getattr(thing, "__module__", None) or ""
    return of.startswith(home) and (inspect.isroutine(thing) or inspect.isclass(thing))


def room(name):
    """Return the module that users know as ``gossipjax.<name>``."""
    try:
        return importlib.import_module(f"gossipjax.{name}")
    except ModuleNotFoundError:  # a module that has another name than its users call it by, or a function
        return functools.reduce(getattr, name.split("."), importlib.import_module("gossipjax"))


def first_line(thing):
    """Return the summary of a docstring.

    Raises:
        ValueError: if there is none.
    """
    text = inspect.getdoc(thing)
    if not text:
        raise ValueError(f"{thing!r}: a public name without a docstring; write one")
    return re.sub(r":\w+:`~?([^`]*)`", r"``\1``", text.splitlines()[0])


def _entry(path, thing):
    kind = "autoclass" if inspect.isclass(thing) else "autofunction"
    options = "\n:members:\n" if kind == "autoclass" else "\n"
    return f"```{{eval-rst}}\n.. {kind}:: {path}{options.replace(chr(10) + ':', chr(10) + '   :')}```\n"


def _first(named):
    """Order the names of the package: what runs things first, then the others, exceptions at the end."""
    name, thing = named
    return name != "simulate", inspect.isclass(thing), name


def page(path, things, text):
    """Write one page: a table of summaries, then every entry."""
    rows = [f"| {{py:obj}}`~{path}.{name}` | {first_line(thing).replace('|', '∣')} |" for name, thing in things.items()]
    table = "\n".join(["| name | what it is |", "| --- | --- |", *rows])
    entries = "\n".join(_entry(f"{path}.{name}", thing) for name, thing in things.items())
    return f"# `{path.replace('gossipjax', 'gj', 1)}`\n\n{text}\n\n{table}\n\n{entries}"


def _module_text(module):
    return f"```{{eval-rst}}\n.. automodule:: {module.__name__}\n   :no-members:\n```"


def write(app):
    """Write all pages into ``api/``, and only those that changed, so that a second build is quick."""
    folder = pathlib.Path(app.srcdir) / "api"
    folder.mkdir(exist_ok=True)
    top = importlib.import_module("gossipjax")
    rooms = {name: public(room(name)) for name in ROOMS}
    elsewhere = [thing for things in rooms.values() for thing in things.values()]
    own = {name: thing for name, thing in public(top).items() if not any(thing is other for other in elsewhere)}
    pages = {"simulate": page("gossipjax", dict(sorted(own.items(), key=_first)), _module_text(top))}
    for name, things in rooms.items():
        pages[name] = page(f"gossipjax.{name}", things, _module_text(room(name)))
        for constant in CONSTANTS.get(name, ()):
            pages[name] += f"\n```{{eval-rst}}\n.. autodata:: gossipjax.{name}.{constant}\n   :no-value:\n```\n"
    listed = "\n".join(pages)
    pages["index"] = (
        f"# Reference\n\nEvery public name, room by room.\n\n```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n"
    )
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)


def find(app, env, node, contnode):
    """Resolve a name by which users know a function that is documented in its room, such as ``gossipjax.dpsgd``."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith("gossipjax."):
        return None
    thing = room_or_none(target.removeprefix("gossipjax."))
    for name in ("protocol", "types", "wrappers", "facts", "results", "sweeps", "privacy", "timeline.clocks"):
        last = target.rpartition(".")[2]
        if thing is not None and public(room(name)).get(last) is thing:
            domain, full = env.get_domain("py"), f"gossipjax.{name}.{last}"
            return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", full, node, contnode)
    return contnode if "._" in target else None  # types of private rooms have names, but no page


def room_or_none(name):
    """Return what users know as ``gossipjax.<name>``, or None."""
    try:
        return room(name)
    except AttributeError:
        return None


def escape(app, what, name, obj, options, lines):
    """Let absolute values such as |x| be text, which reStructuredText takes for a substitution."""
    del app, what, name, obj, options
    lines[:] = [_escaped(line) for line in lines]


def shorten(app, what, name, obj, options, signature, returned):
    """Write Array for the class behind it, which has a private name."""
    del app, what, name, obj, options
    names = re.compile(r"(?:jax\.)?jaxlib\._jax\.Array")
    return tuple(text and names.sub("Array", text) for text in (signature, returned))


def _escaped(line):
    parts = re.split(r"(``[^`]*``)", line)
    return "".join(part if part.startswith("``") else part.replace("|", r"\|") for part in parts)


def setup(app):
    """Write the pages before Sphinx looks for them, and resolve other names of what is on them."""
    app.connect("builder-inited", write)
    app.connect("missing-reference", find)
    app.connect("autodoc-process-docstring", escape)
    app.connect("autodoc-process-signature", shorten)
    return {"parallel_read_safe": True}
