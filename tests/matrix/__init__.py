"""The proof of autogenerate: one change of a model at a time, through a real database.

``cases`` has the rows, ``harness`` runs one of them, ``python -m tests.matrix`` prints them all
beside stock Alembic.
"""
