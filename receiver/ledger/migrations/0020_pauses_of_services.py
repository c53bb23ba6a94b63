"""A pause stops the look-ups of one service, or of all: then its service is empty."""


def up(migrator, db):
    db.execute_sql("ALTER TABLE pause ADD COLUMN service TEXT NOT NULL DEFAULT ''")
    db.execute_sql("DROP INDEX pause_open")
    db.execute_sql("CREATE UNIQUE INDEX pause_open ON pause (account, service) WHERE ended_at IS NULL")
