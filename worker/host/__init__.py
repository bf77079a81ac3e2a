"""What Celery hosts: the pool that runs the service, remote control, vital signs, and probes over HTTP."""
