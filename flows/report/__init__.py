"""The report of a run: pages and tables read from stored rows; nothing is computed or drawn again."""

from .write import publish, write_report

__all__ = ["publish", "write_report"]
