# Runs in Bugsink's own environment, whose packages the type checker does not see.
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
"""Bugsink's settings, for one session on loopback."""

import os
from pathlib import Path

from bugsink.settings.default import *  # noqa: F403  # how its own configurations begin
from bugsink.settings.default import DATABASES

_DATA = Path(os.environ["BUGSINK_DATA"])

SECRET_KEY = "only-for-tests-on-loopback-and-long-enough-to-be-accepted-as-a-key"
ALLOWED_HOSTS = ["127.0.0.1"]
DEBUG = False
EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
DATABASES["default"]["NAME"] = str(_DATA / "db.sqlite3")
DATABASES["snappea"]["NAME"] = str(_DATA / "snappea.sqlite3")
SNAPPEA = {"TASK_ALWAYS_EAGER": True}
BUGSINK = {
    "BASE_URL": os.environ["BUGSINK_URL"],
    "SINGLE_USER": True,
    "SINGLE_TEAM": True,
    "USER_REGISTRATION": "CB_NOBODY",
    "PHONEHOME": False,
    "INGEST_STORE_BASE_DIR": str(_DATA / "ingest"),
    "MAX_EVENTS_PER_PROJECT_PER_5_MINUTES": 100_000,
    "MAX_EVENTS_PER_PROJECT_PER_HOUR": 1_000_000,
    "MAX_EVENTS_PER_5_MINUTES": 100_000,
    "MAX_EVENTS_PER_HOUR": 1_000_000,
}
