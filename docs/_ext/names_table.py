"""Links from the table of the page ``names`` to the reference; a name that is not there is a warning, so an error."""

from docutils import nodes
from sphinx.addnodes import pending_xref


def link(app, doctree):
    """Turn every name of a table's row into a link to its entry in the room that the row begins with."""
    if app.env.docname != "names":
        return
    for row in doctree.findall(nodes.row):
        first, second = row.children
        rooms = [literal.astext() for literal in first.findall(nodes.literal)]
        for literal in list(second.findall(nodes.literal)) if rooms else []:
            name = literal.astext()
            path = name if name.startswith("gj.") else f"{rooms[0]}.{name}"
            literal.replace_self(_reference(app.env.docname, path.replace("gj", "gossipjax", 1), literal))


def _reference(docname, target, literal):
    """Return what Sphinx resolves to a link later, as the role ``py:obj`` does."""
    reference = pending_xref("", refdomain="py", reftype="obj", reftarget=target, refdoc=docname, refexplicit=True)
    reference["refwarn"] = True
    reference += literal.deepcopy()
    return reference


def setup(app):
    """Link before references are resolved."""
    app.connect("doctree-read", link)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
