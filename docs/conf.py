"""How Sphinx builds the site: ``make docs``. It needs no network; GOSSIPJAX_DOCS_ONLINE=1 links to other projects."""

import os
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent), str(HERE.parent / "tests" / "lib")]

import xla_flags  # noqa: E402

import gossipjax  # noqa: E402

# Cells are tiny programs, which take longer to optimize than to run.
os.environ["XLA_FLAGS"] = " ".join(xla_flags.flags_after(os.environ.get("XLA_FLAGS", "").split()))

project = "gossipjax"
author = "the gossipjax authors"
release = gossipjax.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "api_pages",
    "gallery",
    "mathml",
    "measured",
    "names_table",
]
if os.environ.get("GOSSIPJAX_DOCS_ONLINE"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "jax": ("https://docs.jax.dev/en/latest", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "xarray": ("https://docs.xarray.dev/en/stable", None),
        "networkx": ("https://networkx.org/documentation/stable", None),
    }
exclude_patterns = ["_build", "_ext", "_parts", "requirements.lock"]

# Pages: Markdown; code cells run at build, and only when they changed since the last build.
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 180
nb_merge_streams = True
nb_render_markdown_format = "myst"  # results in Markdown may hold tables
nb_ipywidgets_js = {}

# Reference: one page per room, made by api_pages; types stand in the signature, shapes included.
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
python_maximum_signature_line_length = 100
add_module_names = False
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!gossipjax).*")]

html_theme = "sphinx_book_theme"
html_title = "gossipjax"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "navbar_persistent": [],
    "use_download_button": False,
    "use_fullscreen_button": False,
    "secondary_sidebar_items": {"**": ["page-toc"], "gallery": []},
}
