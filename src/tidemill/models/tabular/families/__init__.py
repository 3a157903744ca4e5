"""Families for tables, one file each; `tidemill.models.pool` knows them all."""
