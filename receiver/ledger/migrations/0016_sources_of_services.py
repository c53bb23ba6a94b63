"""Who told a task's service. What callbacks alone name belongs to an assumed one."""


def up(migrator, db):
    db.execute_sql("ALTER TABLE task ADD COLUMN service_source SMALLINT")
