"""Where state lives: the workspace with its ledger (a database) and its artifacts (bytes by hash).

`tidemill.store.workspace.Workspace.open` is the way in.
"""
