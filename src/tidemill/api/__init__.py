"""The HTTP door of the platform: what can be asked of a workspace under ``/api/v1``."""
