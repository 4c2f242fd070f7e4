"""Sphinx: `make docs`.

gallery.py, recipes_table.py and transforms_page.py make docs/generated from the code as it is, and autosummary makes docs/api.
"""

import sys
from dataclasses import fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import gallery
import recipes_table
import transforms_page

import pseudomotion
from pseudomotion.transforms import ALL_TRANSFORMS, Transform

project = "pseudomotion"
author = "The pseudomotion authors"
project_copyright = f"{author}, Apache-2.0"
release = version = pseudomotion.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "myst_nb",
]
exclude_patterns = ["_build", "generated", "examples", "jupyter_execute"]
templates_path = ["_templates"]
html_theme = "furo"
html_title = f"pseudomotion {release}"
html_static_path = ["_static"]
html_css_files = ["custom.css"]
html_last_updated_fmt = "%Y-%m-%d"
html_show_sphinx = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # shapes and units stand in the text; jaxtyping's annotations would drown it
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
maximum_signature_line_length = 80  # else one parameter a line

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

nb_execution_mode = "force"
nb_execution_timeout = -1  # slow machines need more time, not another result
nb_execution_raise_on_error = True
nb_render_markdown_format = "myst"  # tables, in what notebooks print

for part in (gallery, recipes_table, transforms_page):
    part.make(Path(__file__).parent / "generated")


def show_transform(app, what, name, obj, options, lines):
    """Add to the page of a transform how to use it, and what it does to a picture."""
    if not (isinstance(obj, type) and issubclass(obj, Transform) and obj in ALL_TRANSFORMS.values()):
        return
    field = next(iter(fields(obj)), None)
    option = f"{field.name}={getattr(obj(), field.name)!r}" if field else ""
    lines += [
        "",
        ".. rubric:: Example",
        "",
        ">>> from pseudomotion import PMG",
        f">>> from pseudomotion.transforms import {obj.__name__}",
        f'>>> by_name = PMG(("{obj.name}", "zoom"))  # with default ranges',
        f">>> by_class = PMG(({obj.__name__}({option}), 'zoom'))",
        "",
        f".. image:: /generated/{obj.name}.png",
        f"   :alt: two clips of {obj.name}",
    ]


def setup(app):
    """Register what this file adds to Sphinx."""
    app.connect("autodoc-process-docstring", show_transform)
