"""A Django app with one model and some tasks."""
