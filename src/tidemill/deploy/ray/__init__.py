"""Bundles as a deployment of Ray Serve, for those who outgrow one machine (extra ``ray``)."""
