"""Docstrings use Sphinx roles (``:func:`x```); on these pages they become plain code."""

import re

ROLE = re.compile(r":(?:func|class|meth|mod|attr):(<code>)~?")


def on_page_content(html: str, **_) -> str:
    """Drop the role in front of inline code."""
    return ROLE.sub(r"\1", html)
