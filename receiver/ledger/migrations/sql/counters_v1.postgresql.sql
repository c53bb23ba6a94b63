-- What keeps `counter`, version 1: how often things have happened (see receiver/ledger/counters.py).
-- Nothing is taken off when rows are pruned, except from `forwards`, which is how many there are now.
-- Each connection adds to rows of its own (`shard`), so that no transaction waits for another.

CREATE FUNCTION delivery_counted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO counter (name, labels, shard, value)
    SELECT 'deliveries', verdict, pg_backend_pid(), COUNT(*) FROM changed GROUP BY verdict
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
  RETURN NULL;
END $$;

CREATE TRIGGER delivery_counted AFTER INSERT ON delivery REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION delivery_counted();

CREATE FUNCTION attempt_counted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO counter (name, labels, shard, value)
    SELECT 'attempts', kind, pg_backend_pid(), COUNT(*) FROM changed GROUP BY kind
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
  RETURN NULL;
END $$;

CREATE TRIGGER attempt_counted AFTER INSERT ON attempt REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION attempt_counted();

CREATE FUNCTION refusal_counted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO counter (name, labels, shard, value) VALUES ('refusals', NEW.kind, pg_backend_pid(), NEW.requests)
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
  RETURN NULL;
END $$;

CREATE TRIGGER refusal_counted AFTER INSERT ON refusal
  FOR EACH ROW EXECUTE FUNCTION refusal_counted();

CREATE FUNCTION refusal_counted_again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO counter (name, labels, shard, value) VALUES ('refusals', NEW.kind, pg_backend_pid(), NEW.requests - OLD.requests)
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
  RETURN NULL;
END $$;

CREATE TRIGGER refusal_counted_again AFTER UPDATE OF requests ON refusal
  FOR EACH ROW EXECUTE FUNCTION refusal_counted_again();

CREATE FUNCTION pause_counted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO counter (name, labels, shard, value) VALUES ('pauses', CASE WHEN NEW.account THEN 'account' ELSE 'throttled' END, pg_backend_pid(), 1)
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
  RETURN NULL;
END $$;

CREATE TRIGGER pause_counted AFTER INSERT ON pause
  FOR EACH ROW EXECUTE FUNCTION pause_counted();

CREATE FUNCTION run_calls_counted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO counter (name, labels, shard, value) VALUES ('calls', 'failed', pg_backend_pid(), NEW.errors - OLD.errors)
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
  INSERT INTO counter (name, labels, shard, value) VALUES ('calls', 'answered', pg_backend_pid(), NEW.calls - NEW.errors - OLD.calls + OLD.errors)
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
  RETURN NULL;
END $$;

CREATE TRIGGER run_calls_counted AFTER UPDATE ON reconcile_run
  FOR EACH ROW WHEN (NEW.calls <> OLD.calls OR NEW.errors <> OLD.errors) EXECUTE FUNCTION run_calls_counted();

CREATE FUNCTION run_counted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO counter (name, labels, shard, value) VALUES ('runs', CASE WHEN NEW.error IS NULL THEN 'good' ELSE 'failed' END, pg_backend_pid(), 1)
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
  RETURN NULL;
END $$;

CREATE TRIGGER run_counted AFTER UPDATE ON reconcile_run
  FOR EACH ROW WHEN (OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL) EXECUTE FUNCTION run_counted();

CREATE FUNCTION forward_counted_insert() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO counter (name, labels, shard, value)
    SELECT 'forwards', status, pg_backend_pid(), COUNT(*) FROM changed GROUP BY status
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
  RETURN NULL;
END $$;

CREATE TRIGGER forward_counted_insert AFTER INSERT ON forward REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION forward_counted_insert();

CREATE FUNCTION forward_counted_update() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO counter (name, labels, shard, value) VALUES ('forwards', OLD.status, pg_backend_pid(), -1)
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
  INSERT INTO counter (name, labels, shard, value) VALUES ('forwards', NEW.status, pg_backend_pid(), 1)
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
  RETURN NULL;
END $$;

CREATE TRIGGER forward_counted_update AFTER UPDATE OF status ON forward
  FOR EACH ROW WHEN (NEW.status <> OLD.status) EXECUTE FUNCTION forward_counted_update();

CREATE FUNCTION forward_counted_delete() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO counter (name, labels, shard, value)
    SELECT 'forwards', status, pg_backend_pid(), -COUNT(*) FROM changed GROUP BY status
    ON CONFLICT (name, labels, shard) DO UPDATE SET value = counter.value + excluded.value;
  RETURN NULL;
END $$;

CREATE TRIGGER forward_counted_delete AFTER DELETE ON forward REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION forward_counted_delete();
