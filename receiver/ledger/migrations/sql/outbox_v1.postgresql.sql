-- What writes `event`, version 1: what the customer's app is told (see receiver/ledger/outbox.py).
-- The conditions are those of receiver/ledger/models.py; a test compares them.
-- An event happened when the task was settled, given up or doubted. A callback that contradicts upstream
-- leaves no time but that of the next look-up, which is due at once. The clock is for other writers than ours.

CREATE FUNCTION event_of_task() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.status NOT IN ('pending', COALESCE(OLD.status, 'pending')) THEN
  INSERT INTO event (task_id, sequence, type, status, settled_by, confirmed, happened_at) VALUES (
    NEW.id,
    (SELECT COALESCE(MAX(sequence), CASE COALESCE(OLD.status, 'pending') WHEN 'pending' THEN 0 ELSE 1 END) + 1 FROM event
      WHERE task_id = NEW.id AND (sequence > 1 OR type IN ('task.disputed', 'task.expired'))),
    'task.' || NEW.status,
    NEW.status,
    NEW.settled_by,
    CASE WHEN NEW.lookup_status IN ('failed', 'succeeded') THEN NOT COALESCE(((NEW.callback_status = 'failed' AND NEW.lookup_status = 'succeeded') OR (NEW.callback_status = 'succeeded' AND NEW.lookup_status = 'failed') OR (NEW.doubted_at IS NOT NULL AND COALESCE(NEW.lookup_status, 'pending') = 'pending')), FALSE) END,
    COALESCE(CASE
      WHEN NEW.status = COALESCE(OLD.status, 'pending') AND OLD.doubted_at IS NULL AND NEW.doubted_at IS NOT NULL THEN NEW.doubted_at
      WHEN NEW.status = COALESCE(OLD.status, 'pending') THEN NEW.next_lookup_at
      WHEN NEW.status = 'expired' THEN NEW.gave_up_at
      ELSE NEW.settled_at END, clock_timestamp() AT TIME ZONE 'UTC'));
  END IF;
  IF COALESCE(((NEW.callback_status = 'failed' AND NEW.lookup_status = 'succeeded') OR (NEW.callback_status = 'succeeded' AND NEW.lookup_status = 'failed') OR (NEW.doubted_at IS NOT NULL AND COALESCE(NEW.lookup_status, 'pending') = 'pending')), FALSE) AND NOT COALESCE(((OLD.callback_status = 'failed' AND OLD.lookup_status = 'succeeded') OR (OLD.callback_status = 'succeeded' AND OLD.lookup_status = 'failed') OR (OLD.doubted_at IS NOT NULL AND COALESCE(OLD.lookup_status, 'pending') = 'pending')), FALSE) THEN
  INSERT INTO event (task_id, sequence, type, status, settled_by, confirmed, happened_at) VALUES (
    NEW.id,
    (SELECT COALESCE(MAX(sequence), CASE NEW.status WHEN 'pending' THEN 0 ELSE 1 END) + 1 FROM event
      WHERE task_id = NEW.id AND (sequence > 1 OR type IN ('task.disputed', 'task.expired'))),
    'task.disputed',
    NEW.status,
    NEW.settled_by,
    CASE WHEN NEW.lookup_status IN ('failed', 'succeeded') THEN NOT COALESCE(((NEW.callback_status = 'failed' AND NEW.lookup_status = 'succeeded') OR (NEW.callback_status = 'succeeded' AND NEW.lookup_status = 'failed') OR (NEW.doubted_at IS NOT NULL AND COALESCE(NEW.lookup_status, 'pending') = 'pending')), FALSE) END,
    COALESCE(CASE
      WHEN NEW.status = COALESCE(OLD.status, 'pending') AND OLD.doubted_at IS NULL AND NEW.doubted_at IS NOT NULL THEN NEW.doubted_at
      WHEN NEW.status = COALESCE(OLD.status, 'pending') THEN NEW.next_lookup_at
      WHEN NEW.status = 'expired' THEN NEW.gave_up_at
      ELSE NEW.settled_at END, clock_timestamp() AT TIME ZONE 'UTC'));
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER task_event_insert AFTER INSERT ON task FOR EACH ROW WHEN (
  (NEW.status <> 'pending')
  OR (COALESCE(((NEW.callback_status = 'failed' AND NEW.lookup_status = 'succeeded') OR (NEW.callback_status = 'succeeded' AND NEW.lookup_status = 'failed') OR (NEW.doubted_at IS NOT NULL AND COALESCE(NEW.lookup_status, 'pending') = 'pending')), FALSE)))
  EXECUTE FUNCTION event_of_task();

CREATE TRIGGER task_event_update AFTER UPDATE ON task FOR EACH ROW WHEN (
  (NEW.status <> 'pending' AND NEW.status <> OLD.status)
  OR (COALESCE(((NEW.callback_status = 'failed' AND NEW.lookup_status = 'succeeded') OR (NEW.callback_status = 'succeeded' AND NEW.lookup_status = 'failed') OR (NEW.doubted_at IS NOT NULL AND COALESCE(NEW.lookup_status, 'pending') = 'pending')), FALSE) AND NOT COALESCE(((OLD.callback_status = 'failed' AND OLD.lookup_status = 'succeeded') OR (OLD.callback_status = 'succeeded' AND OLD.lookup_status = 'failed') OR (OLD.doubted_at IS NOT NULL AND COALESCE(OLD.lookup_status, 'pending') = 'pending')), FALSE)))
  EXECUTE FUNCTION event_of_task();
