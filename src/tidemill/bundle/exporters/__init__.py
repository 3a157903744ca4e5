"""One file for each form in which a bundle can leave; see `tidemill.bundle.export`."""
