-- What keeps the totals of settled tasks that are deleted, version 1: they move to the hour `deleted` of `tally`
-- (see receiver/ledger/reading/tally.py). The conditions are those of receiver/ledger/task.py; a test compares them.

CREATE FUNCTION task_tally_deleted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO tally (hour, service, status, settled_by, missed, disputed, took, shard, tasks)
  SELECT 'deleted', service, status, settled_by, missed, disputed, -1, pg_backend_pid(), COUNT(*) FROM (
    SELECT
      old_tasks.service AS service,
      old_tasks.status AS status,
      COALESCE(old_tasks.settled_by, '') AS settled_by,
      COALESCE(old_tasks.settled_by = 'lookup' AND COALESCE(old_tasks.callback_status, 'pending') = 'pending', FALSE) AS missed,
      COALESCE(((old_tasks.callback_status = 'failed' AND old_tasks.lookup_status = 'succeeded') OR (old_tasks.callback_status = 'succeeded' AND old_tasks.lookup_status = 'failed') OR (old_tasks.doubted_at IS NOT NULL AND COALESCE(old_tasks.lookup_status, 'pending') = 'pending')), FALSE) AS disputed
    FROM old_tasks WHERE old_tasks.status NOT IN ('pending', 'expired')
  ) AS deleted
  GROUP BY service, status, settled_by, missed, disputed
  ON CONFLICT (hour, service, status, settled_by, missed, disputed, took, shard) DO UPDATE SET tasks = tally.tasks + excluded.tasks;
  RETURN NULL;
END $$;

CREATE TRIGGER task_tally_deleted AFTER DELETE ON task REFERENCING OLD TABLE AS old_tasks
  FOR EACH STATEMENT EXECUTE FUNCTION task_tally_deleted();
