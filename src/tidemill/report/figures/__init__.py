"""Pictures as inline SVG, one file for each family of them. matplotlib is imported when the first one is drawn."""

from __future__ import annotations

from tidemill.report.figures._base import Drawing

__all__ = ["Drawing"]
