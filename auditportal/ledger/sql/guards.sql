-- What must hold whoever writes SQL: the log only grows, without a gap, each entry naming the one before.
-- ENABLE ALWAYS: session_replication_role = replica does not walk past. A superuser can still disable a trigger;
-- that is seen by the guard check, by verification and by whoever holds an earlier checkpoint.

CREATE FUNCTION ledger_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
    MESSAGE = format('the log is append-only: %s on %s refused', TG_OP, TG_TABLE_NAME);
END $$;

-- Runs after each INSERT or COPY into ledger_entry, once a statement, and is the only code that moves the head.
CREATE FUNCTION ledger_chain() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  head ledger_head;
  low bigint; high bigint; total bigint;
  bad bigint;
BEGIN
  SELECT min(seq), max(seq), count(*) INTO low, high, total FROM newrows;
  IF total = 0 THEN RETURN NULL; END IF;
  SELECT * INTO STRICT head FROM ledger_head WHERE id = 1 FOR UPDATE;
  IF low <> head.size OR high - low + 1 <> total THEN
    RAISE EXCEPTION USING ERRCODE = 'check_violation',
      MESSAGE = format('SEQ_GAP: the log has %s entries; got %s rows from seq %s to %s', head.size, total, low, high);
  END IF;
  -- A header is fixed by FORMAT.md §3: `prev` follows the log's name, `t` and `v` end it.
  SELECT min(seq) INTO bad FROM (
    SELECT seq, header,
           lag(leaf_hash, 1, head.leaf) OVER (ORDER BY seq) AS previous,
           lag(substring(header FROM length(header) - 34 FOR 27), 1, convert_to(head.t, 'UTF8')) OVER (ORDER BY seq) AS previous_t
    FROM newrows) ordered
  WHERE substring(header FROM position('\x222c2270726576223a22'::bytea IN header) + 10 FOR 73 + length(seq::text))
        <> convert_to(encode(previous, 'hex') || '","seq":' || seq || ',', 'UTF8')
     OR substring(header FROM length(header) - 34 FOR 27) < previous_t;
  IF bad IS NOT NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'check_violation',
      MESSAGE = format('PREV_CHAIN: the header of seq %s does not follow the entry before it', bad);
  END IF;
  UPDATE ledger_head SET size = high + 1, leaf = last.leaf_hash,
         t = convert_from(substring(last.header FROM length(last.header) - 34 FOR 27), 'UTF8')
  FROM (SELECT leaf_hash, header FROM newrows WHERE seq = high) last WHERE id = 1;
  RETURN NULL;
END $$;

-- Bodies go in beside their entries, in the same transaction: a body without a fresh entry is refused.
CREATE FUNCTION ledger_body_follows() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE orphan bigint;
BEGIN
  SELECT max(seq) INTO orphan FROM newrows WHERE seq >= (SELECT size FROM ledger_head WHERE id = 1) OR seq < 0;
  IF orphan IS NOT NULL THEN
    RAISE EXCEPTION USING ERRCODE = 'check_violation', MESSAGE = format('SEQ_GAP: body %s has no entry', orphan);
  END IF;
  RETURN NULL;
END $$;

-- The head moves only from inside the chain trigger, which is one level deeper than any statement of a client.
CREATE FUNCTION ledger_head_moves() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF pg_trigger_depth() < 2 OR NEW.size <= OLD.size THEN
    RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege', MESSAGE = 'the head of the log moves only with its entries';
  END IF;
  RETURN NEW;
END $$;

ALTER TABLE ledger_entry ADD CONSTRAINT leaf_hash_is_sha256 CHECK (leaf_hash = sha256('\x00'::bytea || header));

CREATE TRIGGER chain AFTER INSERT ON ledger_entry REFERENCING NEW TABLE AS newrows
  FOR EACH STATEMENT EXECUTE FUNCTION ledger_chain();
CREATE TRIGGER body_follows AFTER INSERT ON ledger_body REFERENCING NEW TABLE AS newrows
  FOR EACH STATEMENT EXECUTE FUNCTION ledger_body_follows();
CREATE TRIGGER head_moves BEFORE UPDATE ON ledger_head FOR EACH ROW EXECUTE FUNCTION ledger_head_moves();
ALTER TABLE ledger_entry ENABLE ALWAYS TRIGGER chain;
ALTER TABLE ledger_body ENABLE ALWAYS TRIGGER body_follows;
ALTER TABLE ledger_head ENABLE ALWAYS TRIGGER head_moves;

DO $$
DECLARE guarded text;
BEGIN
  FOREACH guarded IN ARRAY ARRAY['ledger_entry', 'ledger_body', 'ledger_checkpoint'] LOOP
    EXECUTE format('CREATE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON %I FOR EACH ROW EXECUTE FUNCTION ledger_refuse()', guarded);
    EXECUTE format('CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse()', guarded);
    EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER refuse_change', guarded);
    EXECUTE format('ALTER TABLE %I ENABLE ALWAYS TRIGGER refuse_truncate', guarded);
  END LOOP;
  EXECUTE 'CREATE TRIGGER refuse_change BEFORE DELETE ON ledger_head FOR EACH ROW EXECUTE FUNCTION ledger_refuse()';
  EXECUTE 'CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger_head FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse()';
  EXECUTE 'ALTER TABLE ledger_head ENABLE ALWAYS TRIGGER refuse_change';
  EXECUTE 'ALTER TABLE ledger_head ENABLE ALWAYS TRIGGER refuse_truncate';
END $$;

-- Headers and bodies do not compress well and are read whole: plain storage out of line keeps reads cheap.
ALTER TABLE ledger_tile ALTER COLUMN hashes SET STORAGE EXTERNAL;

INSERT INTO ledger_head (id, size, leaf, t, lock_token) VALUES (1, 0, decode(repeat('00', 32), 'hex'), '', 0);
INSERT INTO ledger_sealing (id, size, frontier) VALUES (1, 0, '');
