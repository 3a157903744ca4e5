"""The command line: it translates words into calls of `tidemill.sdk`, and shows what comes back."""
