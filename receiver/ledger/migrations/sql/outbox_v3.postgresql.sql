-- What writes `event`, version 3: what the customer's app is told (see receiver/ledger/outbox.py).
-- The conditions are those of receiver/ledger/task.py; a test compares them.
-- An event happened when the task was settled, given up or doubted. A callback that contradicts upstream
-- leaves no time but that of the next look-up, which is due at once. The clock is for other writers than ours.
-- Once a statement. It looks first: an INSERT takes the lock that readers wait for, even if it inserts nothing.
-- Without nested loops: the rows have no index, and 20,000 updated at once would take a minute instead of a second.

CREATE FUNCTION task_event_insert() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF EXISTS (SELECT FROM new_tasks AS is_now WHERE
    (is_now.status <> 'pending')
    OR (COALESCE(((is_now.callback_status = 'failed' AND is_now.lookup_status = 'succeeded') OR (is_now.callback_status = 'succeeded' AND is_now.lookup_status = 'failed') OR (is_now.doubted_at IS NOT NULL AND COALESCE(is_now.lookup_status, 'pending') = 'pending')), FALSE))) THEN
  INSERT INTO event (task_id, sequence, type, status, settled_by, confirmed, happened_at) SELECT
    is_now.id,
    (SELECT COALESCE(MAX(sequence), CASE 'pending' WHEN 'pending' THEN 0 ELSE 1 END) + 1 FROM event
      WHERE task_id = is_now.id AND (sequence > 1 OR type IN ('task.disputed', 'task.expired'))),
    'task.' || is_now.status,
    is_now.status,
    is_now.settled_by,
    CASE WHEN is_now.lookup_status IN ('failed', 'succeeded') THEN NOT COALESCE(((is_now.callback_status = 'failed' AND is_now.lookup_status = 'succeeded') OR (is_now.callback_status = 'succeeded' AND is_now.lookup_status = 'failed') OR (is_now.doubted_at IS NOT NULL AND COALESCE(is_now.lookup_status, 'pending') = 'pending')), FALSE) END,
    COALESCE(CASE
      WHEN is_now.status = 'pending' AND NULL IS NULL AND is_now.doubted_at IS NOT NULL THEN is_now.doubted_at
      WHEN is_now.status = 'pending' THEN is_now.next_lookup_at
      WHEN is_now.status = 'expired' THEN is_now.gave_up_at
      ELSE is_now.settled_at END, clock_timestamp() AT TIME ZONE 'UTC')
  FROM new_tasks AS is_now
  WHERE is_now.status <> 'pending' ORDER BY is_now.id;
  INSERT INTO event (task_id, sequence, type, status, settled_by, confirmed, happened_at) SELECT
    is_now.id,
    (SELECT COALESCE(MAX(sequence), CASE is_now.status WHEN 'pending' THEN 0 ELSE 1 END) + 1 FROM event
      WHERE task_id = is_now.id AND (sequence > 1 OR type IN ('task.disputed', 'task.expired'))),
    'task.disputed',
    is_now.status,
    is_now.settled_by,
    CASE WHEN is_now.lookup_status IN ('failed', 'succeeded') THEN NOT COALESCE(((is_now.callback_status = 'failed' AND is_now.lookup_status = 'succeeded') OR (is_now.callback_status = 'succeeded' AND is_now.lookup_status = 'failed') OR (is_now.doubted_at IS NOT NULL AND COALESCE(is_now.lookup_status, 'pending') = 'pending')), FALSE) END,
    COALESCE(CASE
      WHEN is_now.status = 'pending' AND NULL IS NULL AND is_now.doubted_at IS NOT NULL THEN is_now.doubted_at
      WHEN is_now.status = 'pending' THEN is_now.next_lookup_at
      WHEN is_now.status = 'expired' THEN is_now.gave_up_at
      ELSE is_now.settled_at END, clock_timestamp() AT TIME ZONE 'UTC')
  FROM new_tasks AS is_now
  WHERE COALESCE(((is_now.callback_status = 'failed' AND is_now.lookup_status = 'succeeded') OR (is_now.callback_status = 'succeeded' AND is_now.lookup_status = 'failed') OR (is_now.doubted_at IS NOT NULL AND COALESCE(is_now.lookup_status, 'pending') = 'pending')), FALSE) ORDER BY is_now.id;
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER task_event_insert AFTER INSERT ON task REFERENCING NEW TABLE AS new_tasks
  FOR EACH STATEMENT EXECUTE FUNCTION task_event_insert();

CREATE FUNCTION task_event_update() RETURNS trigger LANGUAGE plpgsql SET enable_nestloop TO off AS $$ BEGIN
  IF EXISTS (SELECT FROM new_tasks AS is_now JOIN old_tasks AS was USING (id) WHERE
    (is_now.status <> 'pending' AND is_now.status <> was.status)
    OR (COALESCE(((is_now.callback_status = 'failed' AND is_now.lookup_status = 'succeeded') OR (is_now.callback_status = 'succeeded' AND is_now.lookup_status = 'failed') OR (is_now.doubted_at IS NOT NULL AND COALESCE(is_now.lookup_status, 'pending') = 'pending')), FALSE) AND NOT COALESCE(((was.callback_status = 'failed' AND was.lookup_status = 'succeeded') OR (was.callback_status = 'succeeded' AND was.lookup_status = 'failed') OR (was.doubted_at IS NOT NULL AND COALESCE(was.lookup_status, 'pending') = 'pending')), FALSE))
    OR (is_now.lookup_status IN ('failed', 'succeeded') AND COALESCE(was.lookup_status, 'pending') NOT IN ('failed', 'succeeded') AND is_now.status = was.status AND NOT COALESCE(((is_now.callback_status = 'failed' AND is_now.lookup_status = 'succeeded') OR (is_now.callback_status = 'succeeded' AND is_now.lookup_status = 'failed') OR (is_now.doubted_at IS NOT NULL AND COALESCE(is_now.lookup_status, 'pending') = 'pending')), FALSE))) THEN
  INSERT INTO event (task_id, sequence, type, status, settled_by, confirmed, happened_at) SELECT
    is_now.id,
    (SELECT COALESCE(MAX(sequence), CASE was.status WHEN 'pending' THEN 0 ELSE 1 END) + 1 FROM event
      WHERE task_id = is_now.id AND (sequence > 1 OR type IN ('task.disputed', 'task.expired'))),
    'task.' || is_now.status,
    is_now.status,
    is_now.settled_by,
    CASE WHEN is_now.lookup_status IN ('failed', 'succeeded') THEN NOT COALESCE(((is_now.callback_status = 'failed' AND is_now.lookup_status = 'succeeded') OR (is_now.callback_status = 'succeeded' AND is_now.lookup_status = 'failed') OR (is_now.doubted_at IS NOT NULL AND COALESCE(is_now.lookup_status, 'pending') = 'pending')), FALSE) END,
    COALESCE(CASE
      WHEN is_now.status = was.status AND was.doubted_at IS NULL AND is_now.doubted_at IS NOT NULL THEN is_now.doubted_at
      WHEN is_now.status = was.status THEN is_now.next_lookup_at
      WHEN is_now.status = 'expired' THEN is_now.gave_up_at
      ELSE is_now.settled_at END, clock_timestamp() AT TIME ZONE 'UTC')
  FROM new_tasks AS is_now JOIN old_tasks AS was USING (id)
  WHERE is_now.status <> 'pending' AND is_now.status <> was.status ORDER BY is_now.id;
  INSERT INTO event (task_id, sequence, type, status, settled_by, confirmed, happened_at) SELECT
    is_now.id,
    (SELECT COALESCE(MAX(sequence), CASE is_now.status WHEN 'pending' THEN 0 ELSE 1 END) + 1 FROM event
      WHERE task_id = is_now.id AND (sequence > 1 OR type IN ('task.disputed', 'task.expired'))),
    'task.disputed',
    is_now.status,
    is_now.settled_by,
    CASE WHEN is_now.lookup_status IN ('failed', 'succeeded') THEN NOT COALESCE(((is_now.callback_status = 'failed' AND is_now.lookup_status = 'succeeded') OR (is_now.callback_status = 'succeeded' AND is_now.lookup_status = 'failed') OR (is_now.doubted_at IS NOT NULL AND COALESCE(is_now.lookup_status, 'pending') = 'pending')), FALSE) END,
    COALESCE(CASE
      WHEN is_now.status = was.status AND was.doubted_at IS NULL AND is_now.doubted_at IS NOT NULL THEN is_now.doubted_at
      WHEN is_now.status = was.status THEN is_now.next_lookup_at
      WHEN is_now.status = 'expired' THEN is_now.gave_up_at
      ELSE is_now.settled_at END, clock_timestamp() AT TIME ZONE 'UTC')
  FROM new_tasks AS is_now JOIN old_tasks AS was USING (id)
  WHERE COALESCE(((is_now.callback_status = 'failed' AND is_now.lookup_status = 'succeeded') OR (is_now.callback_status = 'succeeded' AND is_now.lookup_status = 'failed') OR (is_now.doubted_at IS NOT NULL AND COALESCE(is_now.lookup_status, 'pending') = 'pending')), FALSE) AND NOT COALESCE(((was.callback_status = 'failed' AND was.lookup_status = 'succeeded') OR (was.callback_status = 'succeeded' AND was.lookup_status = 'failed') OR (was.doubted_at IS NOT NULL AND COALESCE(was.lookup_status, 'pending') = 'pending')), FALSE) ORDER BY is_now.id;
  INSERT INTO event (task_id, sequence, type, status, settled_by, confirmed, happened_at) SELECT
    is_now.id,
    (SELECT COALESCE(MAX(sequence) + 1, 1) FROM event
      WHERE task_id = is_now.id AND (sequence > 1 OR type IN ('task.disputed', 'task.expired'))),
    'task.confirmed',
    is_now.status,
    is_now.settled_by,
    TRUE,
    COALESCE(is_now.looked_at, clock_timestamp() AT TIME ZONE 'UTC')
  FROM new_tasks AS is_now JOIN old_tasks AS was USING (id)
  WHERE is_now.lookup_status IN ('failed', 'succeeded') AND COALESCE(was.lookup_status, 'pending') NOT IN ('failed', 'succeeded') AND is_now.status = was.status AND NOT COALESCE(((is_now.callback_status = 'failed' AND is_now.lookup_status = 'succeeded') OR (is_now.callback_status = 'succeeded' AND is_now.lookup_status = 'failed') OR (is_now.doubted_at IS NOT NULL AND COALESCE(is_now.lookup_status, 'pending') = 'pending')), FALSE) ORDER BY is_now.id;
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER task_event_update AFTER UPDATE ON task REFERENCING OLD TABLE AS old_tasks NEW TABLE AS new_tasks
  FOR EACH STATEMENT EXECUTE FUNCTION task_event_update();
