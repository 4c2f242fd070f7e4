"""Sphinx: `make docs`. What lies in docs/generated is made here, by gallery.py and recipes_table.py, from the code as it is."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import gallery
import recipes_table

import pseudomotion

project = "pseudomotion"
author = "The pseudomotion authors"
release = version = pseudomotion.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "myst_nb"]
exclude_patterns = ["_build", "generated", "examples", "jupyter_execute"]
html_theme = "furo"
html_title = "pseudomotion"
html_static_path: list[str] = []

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # shapes and units stand in the text; jaxtyping's annotations would drown it
napoleon_numpy_docstring = False

nb_execution_mode = "force"
nb_execution_timeout = 1200
nb_execution_raise_on_error = True

for part in (gallery, recipes_table):
    part.make(Path(__file__).parent / "generated")
