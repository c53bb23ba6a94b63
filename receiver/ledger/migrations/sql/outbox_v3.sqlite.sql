-- What writes `event`, version 3: what the customer's app is told (see receiver/ledger/outbox.py).
-- The conditions are those of receiver/ledger/task.py; a test compares them.
-- An event happened when the task was settled, given up or doubted. A callback that contradicts upstream
-- leaves no time but that of the next look-up, which is due at once. The clock is for other writers than ours.

CREATE TRIGGER task_event_insert_status AFTER INSERT ON task WHEN
  NEW.status <> 'pending'
BEGIN
  INSERT INTO event (task_id, sequence, type, status, settled_by, confirmed, happened_at) VALUES (
    NEW.id,
    (SELECT COALESCE(MAX(sequence), CASE 'pending' WHEN 'pending' THEN 0 ELSE 1 END) + 1 FROM event
      WHERE task_id = NEW.id AND (sequence > 1 OR type IN ('task.disputed', 'task.expired'))),
    'task.' || NEW.status,
    NEW.status,
    NEW.settled_by,
    CASE WHEN NEW.lookup_status IN ('failed', 'succeeded') THEN NOT COALESCE(((NEW.callback_status = 'failed' AND NEW.lookup_status = 'succeeded') OR (NEW.callback_status = 'succeeded' AND NEW.lookup_status = 'failed') OR (NEW.doubted_at IS NOT NULL AND COALESCE(NEW.lookup_status, 'pending') = 'pending')), FALSE) END,
    COALESCE(CASE
      WHEN NEW.status = 'pending' AND NULL IS NULL AND NEW.doubted_at IS NOT NULL THEN NEW.doubted_at
      WHEN NEW.status = 'pending' THEN NEW.next_lookup_at
      WHEN NEW.status = 'expired' THEN NEW.gave_up_at
      ELSE NEW.settled_at END, strftime('%Y-%m-%d %H:%M:%f', 'now')));
END;

CREATE TRIGGER task_event_insert_dispute AFTER INSERT ON task WHEN
  COALESCE(((NEW.callback_status = 'failed' AND NEW.lookup_status = 'succeeded') OR (NEW.callback_status = 'succeeded' AND NEW.lookup_status = 'failed') OR (NEW.doubted_at IS NOT NULL AND COALESCE(NEW.lookup_status, 'pending') = 'pending')), FALSE)
BEGIN
  INSERT INTO event (task_id, sequence, type, status, settled_by, confirmed, happened_at) VALUES (
    NEW.id,
    (SELECT COALESCE(MAX(sequence), CASE NEW.status WHEN 'pending' THEN 0 ELSE 1 END) + 1 FROM event
      WHERE task_id = NEW.id AND (sequence > 1 OR type IN ('task.disputed', 'task.expired'))),
    'task.disputed',
    NEW.status,
    NEW.settled_by,
    CASE WHEN NEW.lookup_status IN ('failed', 'succeeded') THEN NOT COALESCE(((NEW.callback_status = 'failed' AND NEW.lookup_status = 'succeeded') OR (NEW.callback_status = 'succeeded' AND NEW.lookup_status = 'failed') OR (NEW.doubted_at IS NOT NULL AND COALESCE(NEW.lookup_status, 'pending') = 'pending')), FALSE) END,
    COALESCE(CASE
      WHEN NEW.status = 'pending' AND NULL IS NULL AND NEW.doubted_at IS NOT NULL THEN NEW.doubted_at
      WHEN NEW.status = 'pending' THEN NEW.next_lookup_at
      WHEN NEW.status = 'expired' THEN NEW.gave_up_at
      ELSE NEW.settled_at END, strftime('%Y-%m-%d %H:%M:%f', 'now')));
END;

CREATE TRIGGER task_event_update AFTER UPDATE ON task WHEN
  (NEW.status <> 'pending' AND NEW.status <> OLD.status)
  OR (COALESCE(((NEW.callback_status = 'failed' AND NEW.lookup_status = 'succeeded') OR (NEW.callback_status = 'succeeded' AND NEW.lookup_status = 'failed') OR (NEW.doubted_at IS NOT NULL AND COALESCE(NEW.lookup_status, 'pending') = 'pending')), FALSE) AND NOT COALESCE(((OLD.callback_status = 'failed' AND OLD.lookup_status = 'succeeded') OR (OLD.callback_status = 'succeeded' AND OLD.lookup_status = 'failed') OR (OLD.doubted_at IS NOT NULL AND COALESCE(OLD.lookup_status, 'pending') = 'pending')), FALSE))
  OR (NEW.lookup_status IN ('failed', 'succeeded') AND COALESCE(OLD.lookup_status, 'pending') NOT IN ('failed', 'succeeded') AND NEW.status = OLD.status AND NOT COALESCE(((NEW.callback_status = 'failed' AND NEW.lookup_status = 'succeeded') OR (NEW.callback_status = 'succeeded' AND NEW.lookup_status = 'failed') OR (NEW.doubted_at IS NOT NULL AND COALESCE(NEW.lookup_status, 'pending') = 'pending')), FALSE))
BEGIN
  INSERT INTO event (task_id, sequence, type, status, settled_by, confirmed, happened_at) SELECT
    NEW.id,
    (SELECT COALESCE(MAX(sequence), CASE OLD.status WHEN 'pending' THEN 0 ELSE 1 END) + 1 FROM event
      WHERE task_id = NEW.id AND (sequence > 1 OR type IN ('task.disputed', 'task.expired'))),
    'task.' || NEW.status,
    NEW.status,
    NEW.settled_by,
    CASE WHEN NEW.lookup_status IN ('failed', 'succeeded') THEN NOT COALESCE(((NEW.callback_status = 'failed' AND NEW.lookup_status = 'succeeded') OR (NEW.callback_status = 'succeeded' AND NEW.lookup_status = 'failed') OR (NEW.doubted_at IS NOT NULL AND COALESCE(NEW.lookup_status, 'pending') = 'pending')), FALSE) END,
    COALESCE(CASE
      WHEN NEW.status = OLD.status AND OLD.doubted_at IS NULL AND NEW.doubted_at IS NOT NULL THEN NEW.doubted_at
      WHEN NEW.status = OLD.status THEN NEW.next_lookup_at
      WHEN NEW.status = 'expired' THEN NEW.gave_up_at
      ELSE NEW.settled_at END, strftime('%Y-%m-%d %H:%M:%f', 'now'))
  WHERE NEW.status <> 'pending' AND NEW.status <> OLD.status;
  INSERT INTO event (task_id, sequence, type, status, settled_by, confirmed, happened_at) SELECT
    NEW.id,
    (SELECT COALESCE(MAX(sequence), CASE NEW.status WHEN 'pending' THEN 0 ELSE 1 END) + 1 FROM event
      WHERE task_id = NEW.id AND (sequence > 1 OR type IN ('task.disputed', 'task.expired'))),
    'task.disputed',
    NEW.status,
    NEW.settled_by,
    CASE WHEN NEW.lookup_status IN ('failed', 'succeeded') THEN NOT COALESCE(((NEW.callback_status = 'failed' AND NEW.lookup_status = 'succeeded') OR (NEW.callback_status = 'succeeded' AND NEW.lookup_status = 'failed') OR (NEW.doubted_at IS NOT NULL AND COALESCE(NEW.lookup_status, 'pending') = 'pending')), FALSE) END,
    COALESCE(CASE
      WHEN NEW.status = OLD.status AND OLD.doubted_at IS NULL AND NEW.doubted_at IS NOT NULL THEN NEW.doubted_at
      WHEN NEW.status = OLD.status THEN NEW.next_lookup_at
      WHEN NEW.status = 'expired' THEN NEW.gave_up_at
      ELSE NEW.settled_at END, strftime('%Y-%m-%d %H:%M:%f', 'now'))
  WHERE COALESCE(((NEW.callback_status = 'failed' AND NEW.lookup_status = 'succeeded') OR (NEW.callback_status = 'succeeded' AND NEW.lookup_status = 'failed') OR (NEW.doubted_at IS NOT NULL AND COALESCE(NEW.lookup_status, 'pending') = 'pending')), FALSE) AND NOT COALESCE(((OLD.callback_status = 'failed' AND OLD.lookup_status = 'succeeded') OR (OLD.callback_status = 'succeeded' AND OLD.lookup_status = 'failed') OR (OLD.doubted_at IS NOT NULL AND COALESCE(OLD.lookup_status, 'pending') = 'pending')), FALSE);
  INSERT INTO event (task_id, sequence, type, status, settled_by, confirmed, happened_at) SELECT
    NEW.id,
    (SELECT COALESCE(MAX(sequence) + 1, 1) FROM event
      WHERE task_id = NEW.id AND (sequence > 1 OR type IN ('task.disputed', 'task.expired'))),
    'task.confirmed',
    NEW.status,
    NEW.settled_by,
    TRUE,
    COALESCE(NEW.looked_at, strftime('%Y-%m-%d %H:%M:%f', 'now'))
  WHERE NEW.lookup_status IN ('failed', 'succeeded') AND COALESCE(OLD.lookup_status, 'pending') NOT IN ('failed', 'succeeded') AND NEW.status = OLD.status AND NOT COALESCE(((NEW.callback_status = 'failed' AND NEW.lookup_status = 'succeeded') OR (NEW.callback_status = 'succeeded' AND NEW.lookup_status = 'failed') OR (NEW.doubted_at IS NOT NULL AND COALESCE(NEW.lookup_status, 'pending') = 'pending')), FALSE);
END;
