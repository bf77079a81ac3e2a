"""A Celery worker for queued generation requests."""

__version__ = "0.1.0"
