-- What keeps the totals of settled tasks that are deleted, version 1: they move to the hour `deleted` of `tally`
-- (see receiver/ledger/reading/tally.py). The conditions are those of receiver/ledger/task.py; a test compares them.

CREATE TRIGGER task_tally_deleted AFTER DELETE ON task WHEN OLD.status NOT IN ('pending', 'expired')
BEGIN
  INSERT INTO tally (hour, service, status, settled_by, missed, disputed, took, shard, tasks) VALUES (
    'deleted',
    OLD.service,
    OLD.status,
    COALESCE(OLD.settled_by, ''),
    COALESCE(OLD.settled_by = 'lookup' AND COALESCE(OLD.callback_status, 'pending') = 'pending', FALSE),
    COALESCE(((OLD.callback_status = 'failed' AND OLD.lookup_status = 'succeeded') OR (OLD.callback_status = 'succeeded' AND OLD.lookup_status = 'failed') OR (OLD.doubted_at IS NOT NULL AND COALESCE(OLD.lookup_status, 'pending') = 'pending')), FALSE),
    -1,
    0,
    1)
  ON CONFLICT (hour, service, status, settled_by, missed, disputed, took, shard) DO UPDATE SET tasks = tally.tasks + excluded.tasks;
END;
