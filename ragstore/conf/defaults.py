"""Every setting of ragstore, its default and its meaning.

A setting is read as ``settings.NAME`` and set as the environment variable ``DB_NAME``; all the
ways are in docs/settings.md. This module holds plain values and imports nothing of ragstore.
"""

from __future__ import annotations

# --- databases ---------------------------------------------------------------------------------

# The database that ragstore works on: postgresql://user:password@host:5432/database, or
# embedded:// for the embedded server. Without it, reading the setting is an error.
DATABASE_URL = None

# The server on which tests make their databases. None: the test kit looks for another one.
TEST_DATABASE_URL = None

# The URL that migrates, and makes embedding spaces: the tables' owner, connected
# straight to the server where DATABASE_URL goes through a pooler. None: DATABASE_URL.
MIGRATION_DATABASE_URL = None

# --- the connection pool -----------------------------------------------------------------------

# Connections kept open, 1 or more. (SQLAlchemy reads 0 as "no limit"; here that is refused:
# a pool without limit is MAX_OVERFLOW = -1.)
POOL_SIZE = 5

# Connections opened beyond POOL_SIZE while all are busy, 0 or more. -1: no limit.
MAX_OVERFLOW = 10

# Seconds, fractions allowed, to wait for a connection of the pool. 0: do not wait.
POOL_TIMEOUT = 30.0

# Whole seconds after which a connection is replaced by a new one. -1: never.
POOL_RECYCLE = 1800

# none: connections reach the server, or a pooler in session mode. transaction: a pooler in
# transaction mode (PgBouncer, Supavisor, RDS Proxy) stands between: no server-side prepared
# statements, nothing that belongs to a session.
POOLER = "none"

# --- connections -------------------------------------------------------------------------------

# Whole seconds (libpq takes no fractions) to wait for the server when connecting, 1 or more;
# psycopg waits at least 2.
CONNECT_TIMEOUT = 10

# Seconds, fractions allowed, after which the server cancels a statement. 0: no limit.
STATEMENT_TIMEOUT = 0.0

# How the connections are called in pg_stat_activity: 1 to 63 bytes, what Postgres keeps of it.
APPLICATION_NAME = "ragstore"

# Whether SQLAlchemy logs the statements of sessions; those of Store do not pass through it.
ECHO = False

# --- migrations --------------------------------------------------------------------------------

# Seconds, fractions allowed, that a migration's statement waits for a lock on a table, while
# everybody else queues behind it. 0: no limit.
MIGRATION_LOCK_TIMEOUT = 3.0

# Seconds, fractions allowed, to wait for another migrator to finish. 0: do not wait.
MIGRATION_WAIT_TIMEOUT = 900.0

# --- the settings themselves -------------------------------------------------------------------

# Whether the old variable names DATABASE_URL, DATABASE_TEST_URL and TEST_DATABASE_URL are read
# where the new ones are not set. Turn it off where they belong to another program.
LEGACY_NAMES = True
