"""Chores of the storage engine that one process of a fleet does."""
