"""How Sphinx builds the site."""

from outthink import __version__

project = "outthink"
author = "The outthink authors"
copyright = "The outthink authors, Apache-2.0"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "README.md"]
default_role = "code"
smartquotes = False

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": False}
autodoc_preserve_defaults = True
add_module_names = False
python_use_unqualified_type_names = True
python_display_short_literal_types = True
maximum_signature_line_length = 76

html_theme = "furo"
html_title = "outthink"
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["assets"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True}
