"""Public conformance suites, fakes and generators; imported by tests alone, ours and those of plug-ins."""
