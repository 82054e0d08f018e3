"""awa in a Flask application: a client made from its configuration, `flask awa ...`, jobs in its application context."""

from __future__ import annotations

import weakref
from typing import Any, Final

from flask import Flask, current_app, has_app_context

from awa.client import Client, set_default_client
from awa.config import ClientSettings
from awa.contrib.flask.commands import awa_command
from awa.errors import ConfigurationError

__all__ = ["Awa"]

SETTINGS: Final = {
    "AWA_DSN": None,
    "AWA_LISTEN_DSN": None,
    "AWA_MIN_CONNECTIONS": ClientSettings().min_connections,
    "AWA_MAX_CONNECTIONS": ClientSettings().max_connections,
    "AWA_CONNECT_TIMEOUT": ClientSettings().connect_timeout,
    "AWA_MAX_ARGS_BYTES": ClientSettings().max_args_bytes,
    "AWA_QUEUES": None,
    "AWA_IMPORTS": (),
}
"""What is read from `app.config`, and what stands there when nothing does. See docs/how-to/flask.md."""

_elsewhere = Client()


class Awa:
    """The extension: `Awa(app)`, or `Awa()` and `init_app(app)` later, for as many applications as there are.

    Within an application's context its client is also the one that `task.enqueue` uses.

    Args:
        app: initialised at once.

    Raises:
        ConfigurationError: `app.config` has a name with AWA_ that is no setting, or one that makes no sense.

    >>> from flask import Flask
    >>> from awa.contrib.flask import Awa
    >>> app = Flask("docs")
    >>> app.config["AWA_DSN"] = dsn
    >>> extension = Awa(app)
    >>> with app.app_context():
    ...     extension.client.enqueue("send_email", {"to": "ada@example.com"}) > 0
    True
    >>> extension.close()
    """

    def __init__(self, app: Flask | None = None) -> None:
        self._app = app
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Give an application its client and `flask awa`.

        Raises:
            ConfigurationError: as for the class; or it has them already.
        """
        if "awa" in app.extensions:
            raise ConfigurationError(f"application {app.name!r} has awa already: one Awa is enough")
        if unknown := sorted(name for name in app.config if name.startswith("AWA_") and name not in SETTINGS):
            raise ConfigurationError(f"app.config: {', '.join(unknown)}: no such setting; there are {', '.join(SETTINGS)}")
        for name, value in SETTINGS.items():
            app.config.setdefault(name, value)
        client = Client(
            app.config["AWA_DSN"],
            min_connections=app.config["AWA_MIN_CONNECTIONS"],
            max_connections=app.config["AWA_MAX_CONNECTIONS"],
            connect_timeout=app.config["AWA_CONNECT_TIMEOUT"],
            max_args_bytes=app.config["AWA_MAX_ARGS_BYTES"],
        )
        app.extensions["awa"] = client
        weakref.finalize(app, client.close)
        app.cli.add_command(awa_command(app))
        set_default_client(_client_here)

    @property
    def client(self) -> Client:
        """The client of the application whose context this is, else of the one that the extension was made with.

        Raises:
            RuntimeError: outside an application's context, when the extension belongs to none.
        """
        app: Any = self._app if self._app is not None and not has_app_context() else current_app
        if "awa" not in app.extensions:
            raise ConfigurationError(f"application {app.name!r} has no awa: call init_app with it")
        client: Client = app.extensions["awa"]
        return client

    def close(self) -> None:
        """Close the client's connections; at the end of the process and of the application that happens by itself."""
        self.client.close()


def _client_here() -> Client:
    if has_app_context():
        client: Client = current_app.extensions.get("awa", _elsewhere)
        return client
    return _elsewhere
