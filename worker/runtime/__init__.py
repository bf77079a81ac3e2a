"""One worker process: the Celery application, its pool, the service in it, probes and remote control."""
