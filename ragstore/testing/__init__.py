"""The test kit: pytest fixtures that give every test a migrated database.

Installed with ragstore, ``ragstore.testing.plugin`` is loaded by pytest itself; it imports only
pytest until a test asks for one of its fixtures. docs/testing.md tells what they are.
"""
