# Runs in Bugsink's own environment, whose packages the type checker does not see.
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
"""Makes Bugsink's databases with one project whose DSN is known, and writes a token that may read it."""

import os
from pathlib import Path
from uuid import UUID

import django
from django.core.management import call_command

django.setup()
for database in ("default", "snappea"):
    call_command("migrate", database=database, verbosity=0)

from bsmain.models import AuthToken  # noqa: E402  # models exist once django is set up
from django.contrib.auth import get_user_model  # noqa: E402  # as above
from projects.models import Project, ProjectMembership, ProjectRole  # noqa: E402  # as above
from teams.models import Team  # noqa: E402  # as above

user = get_user_model().objects.create_superuser("oncall", "oncall@example.com", "oncall")
team = Team.objects.create(name="on call")
project = Project.objects.create(name="responses-worker", team=team, sentry_key=UUID(os.environ["BUGSINK_KEY"]))
ProjectMembership.objects.create(project=project, user=user, accepted=True, role=ProjectRole.ADMIN)
token = AuthToken.create_full_access()
Path(os.environ["BUGSINK_DATA"], "token").write_text(token.token, encoding="ascii")
