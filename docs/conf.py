"""The documentation site: ``python -m sphinx -W docs build/site``."""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # this checkout, whichever is installed

project = "hybridjit"
copyright = "the hybridjit authors, MIT licence"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
templates_path = ["templates"]
exclude_patterns = ["templates"]
default_role = "literal"  # `export` in a docstring is code, as on a page
myst_heading_anchors = 3
nitpicky = False  # a docstring names types of torch, whose inventory a build must not fetch

html_theme = "furo"
html_title = "hybridjit"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["static"]
html_css_files = ["site.css"]
pygments_style = "friendly"
pygments_dark_style = "monokai"

autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 88  # one parameter a line past that
napoleon_use_ivar = True


def plurals(app, what, name, obj, options, lines):
    """Lets ``if`` be followed by an s, which reStructuredText takes for part of the code."""
    text = re.sub(r"``[^`]+``(?=(\w)?)", lambda code: code[0] + ("\\ " if code[1] else ""), "\n".join(lines))
    lines[:] = text.splitlines()


def made_inside(app, what, name, obj, options, signature, returns):
    """Leaves out the arguments of a class that nobody but hybridjit makes."""
    return ("", returns) if what == "class" and "_entries" in (signature or "") else None


def outside(app, docname, source):
    """Names the pages beside the examples, which a reader of the repository can follow and the site has not."""
    source[0] = re.sub(r"\[([^]]*)\]\((?:\.\./)+(examples/\w+)/README\.md\)", r"\1 (`\2`)", source[0])


def setup(app):
    """Called by Sphinx."""
    app.connect("source-read", outside)
    app.connect("autodoc-process-signature", made_inside)
    app.connect("autodoc-process-docstring", plurals)
