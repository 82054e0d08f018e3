"""Finding the tasks of a project."""

from __future__ import annotations

from importlib import import_module

from django.apps import apps
from django.utils.module_loading import module_has_submodule

from awa.contrib.django.conf import awa_settings

OWN_APP = "awa.contrib.django"  # whose module `tasks` is a backend for django.tasks, not a list of tasks


def autodiscover() -> list[str]:
    """Import the modules named in `AWA["AUTODISCOVER"]` of every installed app that has them; their names.

    An error inside such a module is not swallowed. Workers call this as they start.
    """
    found = []
    for config in apps.get_app_configs():
        if config.name == OWN_APP or config.module is None:
            continue
        for name in awa_settings().autodiscover:
            if module_has_submodule(config.module, name):
                found.append(f"{config.name}.{name}")
                import_module(found[-1])
    return found
