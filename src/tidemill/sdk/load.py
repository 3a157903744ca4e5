"""`tidemill.load`."""

from __future__ import annotations

from tidemill.sdk.bundles import load

__all__ = ["load"]
