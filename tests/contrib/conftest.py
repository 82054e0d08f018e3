"""Django's settings are a process's, so its tests run in processes of their own: see test_django.py."""

from __future__ import annotations

import os

collect_ignore = [] if os.environ.get("AWA_TEST_DJANGO") else ["django"]
