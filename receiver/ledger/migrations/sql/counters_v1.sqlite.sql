-- What keeps `counter`, version 1: how often things have happened (see receiver/ledger/counters.py).
-- Nothing is taken off when rows are pruned, except from `forwards`, which is how many there are now.

CREATE TRIGGER delivery_counted AFTER INSERT ON delivery BEGIN
  INSERT INTO counter (name, labels, shard, value) VALUES ('deliveries', NEW.verdict, 0, 1)
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
END;

CREATE TRIGGER attempt_counted AFTER INSERT ON attempt BEGIN
  INSERT INTO counter (name, labels, shard, value) VALUES ('attempts', NEW.kind, 0, 1)
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
END;

CREATE TRIGGER refusal_counted AFTER INSERT ON refusal BEGIN
  INSERT INTO counter (name, labels, shard, value) VALUES ('refusals', NEW.kind, 0, NEW.requests)
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
END;

CREATE TRIGGER refusal_counted_again AFTER UPDATE OF requests ON refusal BEGIN
  INSERT INTO counter (name, labels, shard, value) VALUES ('refusals', NEW.kind, 0, NEW.requests - OLD.requests)
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
END;

CREATE TRIGGER pause_counted AFTER INSERT ON pause BEGIN
  INSERT INTO counter (name, labels, shard, value) VALUES ('pauses', CASE WHEN NEW.account THEN 'account' ELSE 'throttled' END, 0, 1)
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
END;

CREATE TRIGGER run_calls_counted AFTER UPDATE ON reconcile_run WHEN NEW.calls <> OLD.calls OR NEW.errors <> OLD.errors BEGIN
  INSERT INTO counter (name, labels, shard, value) VALUES ('calls', 'failed', 0, NEW.errors - OLD.errors)
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
  INSERT INTO counter (name, labels, shard, value) VALUES ('calls', 'answered', 0, NEW.calls - NEW.errors - OLD.calls + OLD.errors)
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
END;

CREATE TRIGGER run_counted AFTER UPDATE ON reconcile_run WHEN OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL BEGIN
  INSERT INTO counter (name, labels, shard, value) VALUES ('runs', CASE WHEN NEW.error IS NULL THEN 'good' ELSE 'failed' END, 0, 1)
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
END;

CREATE TRIGGER forward_counted_insert AFTER INSERT ON forward BEGIN
  INSERT INTO counter (name, labels, shard, value) VALUES ('forwards', NEW.status, 0, 1)
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
END;

CREATE TRIGGER forward_counted_update AFTER UPDATE OF status ON forward WHEN NEW.status <> OLD.status BEGIN
  INSERT INTO counter (name, labels, shard, value) VALUES ('forwards', OLD.status, 0, -1)
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
  INSERT INTO counter (name, labels, shard, value) VALUES ('forwards', NEW.status, 0, 1)
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
END;

CREATE TRIGGER forward_counted_delete AFTER DELETE ON forward BEGIN
  INSERT INTO counter (name, labels, shard, value) VALUES ('forwards', OLD.status, 0, -1)
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
END;
