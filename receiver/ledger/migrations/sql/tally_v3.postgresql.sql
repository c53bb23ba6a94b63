-- What keeps `tally`, version 3: how many tasks of each kind there are (see receiver/ledger/reading/tally.py).
-- The conditions and steps are those of receiver/ledger/models.py and tally.py; a test compares them.

CREATE FUNCTION tally_task() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF TG_OP <> 'INSERT' THEN
  INSERT INTO tally (hour, service, status, settled_by, missed, disputed, took, shard, tasks) VALUES (
    to_char(OLD.created_at, 'YYYY-MM-DD HH24'),
    OLD.service,
    OLD.status,
    COALESCE(OLD.settled_by, ''),
    COALESCE(OLD.settled_by = 'lookup' AND COALESCE(OLD.callback_status, 'pending') = 'pending', FALSE),
    COALESCE(((OLD.callback_status = 'failed' AND OLD.lookup_status = 'succeeded') OR (OLD.callback_status = 'succeeded' AND OLD.lookup_status = 'failed') OR (OLD.doubted_at IS NOT NULL AND COALESCE(OLD.lookup_status, 'pending') = 'pending')), FALSE),
    CASE WHEN OLD.settled_at IS NULL THEN -1 ELSE (
      SELECT CASE
        WHEN s < 5 THEN 0
        WHEN s < 15 THEN 1
        WHEN s < 30 THEN 2
        WHEN s < 60 THEN 3
        WHEN s < 120 THEN 4
        WHEN s < 180 THEN 5
        WHEN s < 300 THEN 6
        WHEN s < 600 THEN 7
        WHEN s < 1800 THEN 8
        WHEN s < 3600 THEN 9
        WHEN s < 21600 THEN 10
        ELSE 11 END
      FROM (SELECT EXTRACT(EPOCH FROM OLD.settled_at - COALESCE(OLD.submitted_at, OLD.created_at)) AS s LIMIT 1) AS spent) END,
    pg_backend_pid(),
    -1)
  ON CONFLICT (hour, service, status, settled_by, missed, disputed, took, shard) DO UPDATE SET tasks = tally.tasks + excluded.tasks;
  END IF;
  IF TG_OP <> 'DELETE' THEN
  INSERT INTO tally (hour, service, status, settled_by, missed, disputed, took, shard, tasks) VALUES (
    to_char(NEW.created_at, 'YYYY-MM-DD HH24'),
    NEW.service,
    NEW.status,
    COALESCE(NEW.settled_by, ''),
    COALESCE(NEW.settled_by = 'lookup' AND COALESCE(NEW.callback_status, 'pending') = 'pending', FALSE),
    COALESCE(((NEW.callback_status = 'failed' AND NEW.lookup_status = 'succeeded') OR (NEW.callback_status = 'succeeded' AND NEW.lookup_status = 'failed') OR (NEW.doubted_at IS NOT NULL AND COALESCE(NEW.lookup_status, 'pending') = 'pending')), FALSE),
    CASE WHEN NEW.settled_at IS NULL THEN -1 ELSE (
      SELECT CASE
        WHEN s < 5 THEN 0
        WHEN s < 15 THEN 1
        WHEN s < 30 THEN 2
        WHEN s < 60 THEN 3
        WHEN s < 120 THEN 4
        WHEN s < 180 THEN 5
        WHEN s < 300 THEN 6
        WHEN s < 600 THEN 7
        WHEN s < 1800 THEN 8
        WHEN s < 3600 THEN 9
        WHEN s < 21600 THEN 10
        ELSE 11 END
      FROM (SELECT EXTRACT(EPOCH FROM NEW.settled_at - COALESCE(NEW.submitted_at, NEW.created_at)) AS s LIMIT 1) AS spent) END,
    pg_backend_pid(),
    1)
  ON CONFLICT (hour, service, status, settled_by, missed, disputed, took, shard) DO UPDATE SET tasks = tally.tasks + excluded.tasks;
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER task_tally AFTER INSERT OR DELETE ON task
  FOR EACH ROW EXECUTE FUNCTION tally_task();

CREATE TRIGGER task_tally_update AFTER UPDATE ON task FOR EACH ROW WHEN (
  (OLD.created_at, OLD.service, OLD.status, OLD.settled_by, OLD.callback_status, OLD.lookup_status, OLD.doubted_at, OLD.settled_at, OLD.submitted_at)
  IS DISTINCT FROM (NEW.created_at, NEW.service, NEW.status, NEW.settled_by, NEW.callback_status, NEW.lookup_status, NEW.doubted_at, NEW.settled_at, NEW.submitted_at))
  EXECUTE FUNCTION tally_task();
