"""A shop: Flask, SQLAlchemy and awa."""

import os

from flask import Flask

from awa.contrib.flask import Awa
from shop import database, tasks, views

queue = Awa()


def create_app() -> Flask:
    """The application; its database is named by ORDERS_DSN."""
    app = Flask(__name__)
    app.config["DATABASE"] = app.config["AWA_DSN"] = os.environ["ORDERS_DSN"]
    app.config["AWA_QUEUES"] = {tasks.ship_order.defaults.queue: 4}
    database.init_app(app)
    queue.init_app(app)
    app.register_blueprint(views.orders)
    return app
