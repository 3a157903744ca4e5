"""One file for each executor; all keep the contract of `tidemill.core.protocols.Executor`."""
