"""The site builds without its code cells, and a browser shows its pages without an error."""

import functools
import http.server
import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys
import threading
import tomllib
import typing

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGES = (
    "index.html",
    "quickstart.html",
    "results.html",
    "api/topology.html",
    "papers/jwins.html",
    "gallery.html",
    "explore.html",
)
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0")


def test_the_citation_has_the_version_of_the_package():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version = {{{version}}}" in (ROOT / "gossipjax" / "references.bib").read_text(encoding="utf-8")


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the site, and notes what is missing."""

    missing: typing.ClassVar[list[str]] = []

    def log_message(self, *words):
        del words

    def send_error(self, code, *words):
        if not self.path.startswith("/favicon"):  # browsers ask for it of their own accord
            self.missing.append(f"{self.path}: {code}")
        super().send_error(code, *words)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The address of the site, built anew without running its cells."""
    if importlib.util.find_spec("sphinx") is None or importlib.util.find_spec("myst_nb") is None:
        pytest.skip("sphinx is not installed: pip install -r docs/requirements.lock")
    out = tmp_path_factory.mktemp("site")
    # The lexer of cells is named by the kernel, which does not run.
    settings = ["nb_execution_mode=off", "suppress_warnings=myst-nb.lexer"]
    words = ["-W", "--keep-going", "-q", "-E", "-d", str(out / "trees"), "-b", "html"]
    words += [word for setting in settings for word in ("-D", setting)]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *words, str(ROOT / "docs"), str(out / "html")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    handler = functools.partial(Handler, directory=str(out / "html"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def opened(address, tmp_path):
    """The document after its scripts have run, and what they wrote to the console, without the theme's own notes."""
    words = [*FLAGS, f"--user-data-dir={tmp_path}", "--virtual-time-budget=10000", "--dump-dom", address]
    done = subprocess.run([BROWSER, *words], capture_output=True, text=True, timeout=120)
    written = re.findall(r"CONSOLE:\d+\] .*", done.stderr)
    return done.stdout, [line for line in written if not re.search(r'"(\[PST\]:|Got invalid theme mode)', line)]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium")
def test_pages_open_without_an_error_and_the_search_finds_jwins(site, tmp_path):
    Handler.missing.clear()
    pages = [page for page in PAGES if (ROOT / "docs" / page).with_suffix(".md").is_file() or page.startswith("api")]
    assert len(pages) >= 4
    for page in pages:
        document, console = opened(f"{site}/{page}", tmp_path)
        assert "</article>" in document, page
        assert console == [], page
    found, console = opened(f"{site}/search.html?q=jwins", tmp_path)
    assert console == []
    assert '<a href="api/sharing.html#gossipjax.sharing.jwins"' in found
    assert Handler.missing == []
