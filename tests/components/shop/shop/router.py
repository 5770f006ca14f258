"""Visits are in SQLite, all else in PostgreSQL."""


class Router:
    def db_for_read(self, model, **_):
        return "sessions" if model._meta.app_label == "visits" else "default"

    db_for_write = db_for_read

    def allow_migrate(self, db, app_label, **_):
        return (db == "sessions") == (app_label == "visits")
