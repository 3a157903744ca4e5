"""Revisions are numbered 0001, 0002…: a number above `tidemill.store.upgrade.HEAD` was written by a newer Tidemill."""
