-- What keeps `tally`, version 4: how many tasks of each kind there are (see receiver/ledger/reading/tally.py).
-- The conditions and steps are those of receiver/ledger/task.py and tally.py; a test compares them.
-- Once a statement: the rows of one group of callbacks change few totals.

CREATE FUNCTION task_tally_insert() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO tally (hour, service, status, settled_by, missed, disputed, took, shard, tasks)
  SELECT hour, service, status, settled_by, missed, disputed, took, pg_backend_pid(), SUM(tasks) FROM (
    SELECT
      to_char(new_tasks.created_at, 'YYYY-MM-DD HH24') AS hour,
      new_tasks.service AS service,
      new_tasks.status AS status,
      COALESCE(new_tasks.settled_by, '') AS settled_by,
      COALESCE(new_tasks.settled_by = 'lookup' AND COALESCE(new_tasks.callback_status, 'pending') = 'pending', FALSE) AS missed,
      COALESCE(((new_tasks.callback_status = 'failed' AND new_tasks.lookup_status = 'succeeded') OR (new_tasks.callback_status = 'succeeded' AND new_tasks.lookup_status = 'failed') OR (new_tasks.doubted_at IS NOT NULL AND COALESCE(new_tasks.lookup_status, 'pending') = 'pending')), FALSE) AS disputed,
      CASE WHEN new_tasks.settled_at IS NULL THEN -1 ELSE width_bucket((EXTRACT(EPOCH FROM new_tasks.settled_at - COALESCE(new_tasks.submitted_at, new_tasks.created_at)))::float8, '{5,15,30,60,120,180,300,600,1800,3600,21600}'::float8[]) END AS took,
      1 AS tasks
    FROM new_tasks
  ) AS changed
  GROUP BY hour, service, status, settled_by, missed, disputed, took HAVING SUM(tasks) <> 0
  ON CONFLICT (hour, service, status, settled_by, missed, disputed, took, shard) DO UPDATE SET tasks = tally.tasks + excluded.tasks;
  RETURN NULL;
END $$;

CREATE TRIGGER task_tally_insert AFTER INSERT ON task REFERENCING NEW TABLE AS new_tasks
  FOR EACH STATEMENT EXECUTE FUNCTION task_tally_insert();

CREATE FUNCTION task_tally_delete() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO tally (hour, service, status, settled_by, missed, disputed, took, shard, tasks)
  SELECT hour, service, status, settled_by, missed, disputed, took, pg_backend_pid(), SUM(tasks) FROM (
    SELECT
      to_char(old_tasks.created_at, 'YYYY-MM-DD HH24') AS hour,
      old_tasks.service AS service,
      old_tasks.status AS status,
      COALESCE(old_tasks.settled_by, '') AS settled_by,
      COALESCE(old_tasks.settled_by = 'lookup' AND COALESCE(old_tasks.callback_status, 'pending') = 'pending', FALSE) AS missed,
      COALESCE(((old_tasks.callback_status = 'failed' AND old_tasks.lookup_status = 'succeeded') OR (old_tasks.callback_status = 'succeeded' AND old_tasks.lookup_status = 'failed') OR (old_tasks.doubted_at IS NOT NULL AND COALESCE(old_tasks.lookup_status, 'pending') = 'pending')), FALSE) AS disputed,
      CASE WHEN old_tasks.settled_at IS NULL THEN -1 ELSE width_bucket((EXTRACT(EPOCH FROM old_tasks.settled_at - COALESCE(old_tasks.submitted_at, old_tasks.created_at)))::float8, '{5,15,30,60,120,180,300,600,1800,3600,21600}'::float8[]) END AS took,
      -1 AS tasks
    FROM old_tasks
  ) AS changed
  GROUP BY hour, service, status, settled_by, missed, disputed, took HAVING SUM(tasks) <> 0
  ON CONFLICT (hour, service, status, settled_by, missed, disputed, took, shard) DO UPDATE SET tasks = tally.tasks + excluded.tasks;
  RETURN NULL;
END $$;

CREATE TRIGGER task_tally_delete AFTER DELETE ON task REFERENCING OLD TABLE AS old_tasks
  FOR EACH STATEMENT EXECUTE FUNCTION task_tally_delete();

CREATE FUNCTION task_tally_update() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO tally (hour, service, status, settled_by, missed, disputed, took, shard, tasks)
  SELECT hour, service, status, settled_by, missed, disputed, took, pg_backend_pid(), SUM(tasks) FROM (
    SELECT
      to_char(old_tasks.created_at, 'YYYY-MM-DD HH24') AS hour,
      old_tasks.service AS service,
      old_tasks.status AS status,
      COALESCE(old_tasks.settled_by, '') AS settled_by,
      COALESCE(old_tasks.settled_by = 'lookup' AND COALESCE(old_tasks.callback_status, 'pending') = 'pending', FALSE) AS missed,
      COALESCE(((old_tasks.callback_status = 'failed' AND old_tasks.lookup_status = 'succeeded') OR (old_tasks.callback_status = 'succeeded' AND old_tasks.lookup_status = 'failed') OR (old_tasks.doubted_at IS NOT NULL AND COALESCE(old_tasks.lookup_status, 'pending') = 'pending')), FALSE) AS disputed,
      CASE WHEN old_tasks.settled_at IS NULL THEN -1 ELSE width_bucket((EXTRACT(EPOCH FROM old_tasks.settled_at - COALESCE(old_tasks.submitted_at, old_tasks.created_at)))::float8, '{5,15,30,60,120,180,300,600,1800,3600,21600}'::float8[]) END AS took,
      -1 AS tasks
    FROM old_tasks
    UNION ALL
    SELECT
      to_char(new_tasks.created_at, 'YYYY-MM-DD HH24') AS hour,
      new_tasks.service AS service,
      new_tasks.status AS status,
      COALESCE(new_tasks.settled_by, '') AS settled_by,
      COALESCE(new_tasks.settled_by = 'lookup' AND COALESCE(new_tasks.callback_status, 'pending') = 'pending', FALSE) AS missed,
      COALESCE(((new_tasks.callback_status = 'failed' AND new_tasks.lookup_status = 'succeeded') OR (new_tasks.callback_status = 'succeeded' AND new_tasks.lookup_status = 'failed') OR (new_tasks.doubted_at IS NOT NULL AND COALESCE(new_tasks.lookup_status, 'pending') = 'pending')), FALSE) AS disputed,
      CASE WHEN new_tasks.settled_at IS NULL THEN -1 ELSE width_bucket((EXTRACT(EPOCH FROM new_tasks.settled_at - COALESCE(new_tasks.submitted_at, new_tasks.created_at)))::float8, '{5,15,30,60,120,180,300,600,1800,3600,21600}'::float8[]) END AS took,
      1 AS tasks
    FROM new_tasks
  ) AS changed
  GROUP BY hour, service, status, settled_by, missed, disputed, took HAVING SUM(tasks) <> 0
  ON CONFLICT (hour, service, status, settled_by, missed, disputed, took, shard) DO UPDATE SET tasks = tally.tasks + excluded.tasks;
  RETURN NULL;
END $$;

CREATE TRIGGER task_tally_update AFTER UPDATE ON task REFERENCING OLD TABLE AS old_tasks NEW TABLE AS new_tasks
  FOR EACH STATEMENT EXECUTE FUNCTION task_tally_update();
