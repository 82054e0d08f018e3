"""SQLAlchemy: one engine for the application, one session for each application context, that of a job too."""

import psycopg
from flask import Flask, current_app, g
from sqlalchemy import ForeignKey, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    """Of all models."""


class Order(Base):
    """What was ordered."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    item: Mapped[str]
    quantity: Mapped[int]


class Shipment(Base):
    """That it was shipped, and by which attempt of which job."""

    __tablename__ = "shipments"
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    job_id: Mapped[int]
    attempt: Mapped[int]


def init_app(app: Flask) -> None:
    """Give the application its engine, and `flask create-tables`."""
    app.extensions["engine"] = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(app.config["DATABASE"]), pool_size=10
    )

    @app.teardown_appcontext
    def close_session(error: BaseException | None) -> None:
        if (session := g.pop("session", None)) is not None:
            session.close()

    @app.cli.command("create-tables")
    def create_tables() -> None:
        """Make the shop's tables."""
        Base.metadata.create_all(app.extensions["engine"])


def session() -> Session:
    """This context's."""
    if "session" not in g:
        g.session = Session(current_app.extensions["engine"])
    return g.session
