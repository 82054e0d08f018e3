-- Rings that turn, counters that are exact, history that lasts for a stated time.

-- One row: how long what is kept. The rings turn four times in the time that their rows are kept.
CREATE TABLE awa.storage_settings (
    singleton              bool    PRIMARY KEY DEFAULT true CHECK (singleton),
    completed_retention    float8  NOT NULL DEFAULT 3600     CHECK (completed_retention >= 0),      -- seconds
    history_max_bytes      int8    NOT NULL DEFAULT 1 << 30  CHECK (history_max_bytes >= 1048576),  -- of completed jobs
    terminal_retention     float8  NOT NULL DEFAULT 604800   CHECK (terminal_retention >= 0),       -- seconds: failed, cancelled
    dead_letter_retention  float8  NOT NULL DEFAULT 2592000  CHECK (dead_letter_retention >= 0),    -- seconds
    materialize_after      float8  NOT NULL DEFAULT 60       CHECK (materialize_after >= 0),        -- seconds after a slot's seal
    lease_rotate_bytes     int8    NOT NULL DEFAULT 16777216 CHECK (lease_rotate_bytes >= 8192)
);
INSERT INTO awa.storage_settings DEFAULT VALUES;

ALTER TABLE awa.ring_slots
    ADD COLUMN generation   int8,                       -- of the rotation that made it current last
    ADD COLUMN ready_slots  int4 NOT NULL DEFAULT 0,    -- of a claim slot proved closed: the ready slots its claims name
    ADD COLUMN prunes       int8 NOT NULL DEFAULT 0,    -- truncations, folds included: see prune_epoch
    ADD COLUMN held_reason  text,                       -- why it was not pruned when it was looked at
    ADD COLUMN held_since   timestamptz;
UPDATE awa.ring_slots SET generation = 0 WHERE slot = 0;

-- The result of a job that was completed with one, in the slot of its claim; its body is the ready row.
CREATE TABLE awa.receipt_results (
    claim_id    int8   NOT NULL,
    item        int2   NOT NULL,
    claim_slot  int2   NOT NULL,
    result      jsonb  NOT NULL
) PARTITION BY LIST (claim_slot);

DO $children$
BEGIN
    FOR v_slot IN 0..7 LOOP
        EXECUTE format('CREATE TABLE awa.receipt_results_%s PARTITION OF awa.receipt_results FOR VALUES IN (%s)
                        WITH (autovacuum_vacuum_insert_threshold = -1)', v_slot, v_slot);
        EXECUTE format('CREATE UNIQUE INDEX ON awa.receipt_results_%s (claim_slot, claim_id, item)', v_slot);
        EXECUTE format('CREATE INDEX ON awa.leases_%s (job_id)', v_slot);
    END LOOP;
END
$children$;

-- How many jobs have ended, as counted by slot once that is known (claim slots: when every item is proved closed; terminal slots:
-- as their deltas are folded) and, of the dead letters, as slot 0 of a ring "dlq" that does not turn.
CREATE TABLE awa.queue_terminal_live_counts (
    ring   text  NOT NULL,
    slot   int2  NOT NULL,
    queue  text  NOT NULL,
    state  text  NOT NULL,
    n      int8  NOT NULL,
    PRIMARY KEY (ring, slot, queue, state)
);

-- What was pruned. A queue's total is what is still there plus this.
CREATE TABLE awa.queue_terminal_rollups (
    queue  text  NOT NULL,
    state  text  NOT NULL,
    n      int8  NOT NULL,
    PRIMARY KEY (queue, state)
);

-- Whoever inserts wide endings or deletes them, by whatever path, is counted: triggers, so that no path can forget.
-- Trigger functions are made here and not in functions/: those are dropped when they change, which triggers forbid.
CREATE FUNCTION awa.count_done_entries() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO awa.queue_terminal_count_deltas (terminal_slot, queue, state, delta)
    SELECT r.terminal_slot, l.queue, r.state, count(*) * CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END
    FROM changed r JOIN awa.queue_lanes l ON l.lane_id = r.lane_id
    GROUP BY r.terminal_slot, l.queue, r.state;
    RETURN NULL;
END
$$;
CREATE TRIGGER count_inserted AFTER INSERT ON awa.done_entries REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION awa.count_done_entries();
CREATE TRIGGER count_deleted AFTER DELETE ON awa.done_entries REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION awa.count_done_entries();

CREATE FUNCTION awa.count_dead_letters() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO awa.queue_terminal_count_deltas (terminal_slot, queue, state, delta)
    SELECT (SELECT r.slot FROM awa.ring_rotations r WHERE r.ring = 'terminal' ORDER BY r.generation DESC LIMIT 1),
           l.queue, 'dead_lettered', count(*) * CASE TG_OP WHEN 'INSERT' THEN 1 ELSE -1 END
    FROM changed r JOIN awa.queue_lanes l ON l.lane_id = r.lane_id
    GROUP BY l.queue;
    RETURN NULL;
END
$$;
CREATE TRIGGER count_inserted AFTER INSERT ON awa.dlq_entries REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION awa.count_dead_letters();
CREATE TRIGGER count_deleted AFTER DELETE ON awa.dlq_entries REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION awa.count_dead_letters();

-- What ended before there were counters.
INSERT INTO awa.queue_terminal_live_counts (ring, slot, queue, state, n)
SELECT 'terminal', e.terminal_slot, l.queue, e.state, count(*)
FROM awa.done_entries e JOIN awa.queue_lanes l ON l.lane_id = e.lane_id GROUP BY 2, 3, 4
UNION ALL
SELECT 'dlq', 0, l.queue, 'dead_lettered', count(*)
FROM awa.dlq_entries e JOIN awa.queue_lanes l ON l.lane_id = e.lane_id GROUP BY 3;

-- The dead-letter queue is purged by age, whatever the queue.
CREATE INDEX ON awa.dlq_entries (finalized_at, job_id);
