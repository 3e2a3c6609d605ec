"""Docstrings as the manual shows them (a griffe extension).

Sphinx roles such as ``:class:`Name``` become plain code, and public constants, which need no docstring beside their
value, are shown too.
"""

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):`~?([^`]+)`")


class PlainRoles(griffe.Extension):
    """Every docstring without roles, and one for every constant."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one object's docstring."""
        if obj.is_attribute and obj.name.isupper() and not obj.docstring:
            obj.docstring = griffe.Docstring("A constant.", parent=obj)
        if obj.docstring:
            obj.docstring.value = ROLE.sub(r"`\1`", obj.docstring.value)
