"""What Alembic runs for each command; all of it is in ``ragstore.migrations.runner``."""

from alembic import context

from ragstore.migrations.runner import run_env

run_env(context)
