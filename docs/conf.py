"""Sphinx configuration; `make docs` builds with it, without a network."""

import os
import re
import sys
import warnings
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from sphinx.util.logging import getLogger  # noqa: E402

import mercer  # noqa: E402
from docs.reference import write_reference  # noqa: E402

logger = getLogger(__name__)
write_reference(HERE / "reference")

project = "Mercer"
author = "The Mercer developers"
copyright = "The Mercer developers"
version = release = mercer.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",  # formulas show without a network
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
templates_path = ["_templates"]
exclude_patterns = ["_build"]
default_role = "py:obj"
nitpicky = False

autodoc_typehints = "none"  # the types stand in the docstrings, with shapes
autodoc_member_order = "bysource"
autosummary_generate = True
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
toc_object_entries_show_parents = "hide"
myst_heading_anchors = 3

# Gallery scripts run on every build; a script that fails, fails the build. Those that read public
# data are shown without their results where it is not.
data = Path(os.environ.setdefault("MERCER_DATA", str(HERE.parents[1] / "shared" / "data")))
left_out = [
    path.name
    for path in sorted((HERE.parent / "examples").glob("plot_*.py"))
    if not data.is_dir() and "MERCER_DATA" in path.read_text(encoding="utf-8")
]
if left_out:
    logger.info("not run, because there is no folder %s: %s", data, ", ".join(left_out))
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": "".join(f"(?!{re.escape(name)}$)" for name in left_out) + "plot_",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "capture_repr": (),  # what scripts print, not the legend that a last line returns
}
warnings.filterwarnings("error", module=r"mercer\.")

html_theme = "pydata_sphinx_theme"
html_title = f"Mercer {version}"
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {name: [] for name in ("index", "evidence", "contributing", "changelog")}
html_sidebars["reference/choosing"] = []
html_theme_options = {
    "navbar_end": ["search-button", "theme-switcher"],
    "navbar_persistent": [],
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": False,
    "navigation_with_keys": False,
}


def escape_shapes(app, what, name, obj, options, lines):
    """Keep shapes such as ``(n, *event)`` and ``(n_features_in_,)`` from being taken for markup."""
    lines[:] = [
        re.sub(r"(\w)_,\)", r"\1\\_,)", line.replace(", *event", r", \*event")) for line in lines
    ]


def leave_out(app, what, name, obj, skip, options):
    """Leave out what scikit-learn adds to estimators, whose text links into its own pages."""
    return True if re.fullmatch(r"set_\w+_request", name) else None


def setup(app):
    """Register the hooks, the first before numpydoc's."""
    app.connect("autodoc-skip-member", leave_out)
    app.connect("autodoc-process-docstring", escape_shapes, priority=400)
