-- The whole storage schema: ledgers, lanes, the four rings, the backlog and the counters.
-- Ring children are made by one loop per ring, so that the eight slots can never differ.

CREATE SCHEMA IF NOT EXISTS awa;

-- ---------------------------------------------------------------------------------------------------------------
-- What is installed here
-- ---------------------------------------------------------------------------------------------------------------

CREATE TABLE awa.schema_migrations (
    version     int4        PRIMARY KEY,
    name        text        NOT NULL,
    checksum    text        NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE awa.schema_objects (
    path        text        PRIMARY KEY,            -- functions/claim_jobs.sql
    checksum    text        NOT NULL,
    applied_at  timestamptz NOT NULL DEFAULT now()
);

-- One row. install_id tells one database from another, so that nothing a client has cached about one is used on the other.
CREATE TABLE awa.queue_meta (
    singleton            bool    PRIMARY KEY DEFAULT true CHECK (singleton),
    install_id           uuid    NOT NULL DEFAULT gen_random_uuid(),
    release              text    NOT NULL DEFAULT '',      -- the awa release that migrated last
    sql_digest           text    NOT NULL DEFAULT '',      -- of all files it applied
    priority_aging_after float8  NOT NULL DEFAULT 60 CHECK (priority_aging_after > 0)  -- seconds per priority step gained
);
INSERT INTO awa.queue_meta DEFAULT VALUES;

-- ---------------------------------------------------------------------------------------------------------------
-- Lanes, heads, queues
-- ---------------------------------------------------------------------------------------------------------------

CREATE TABLE awa.queue_lanes (
    lane_id        int4        GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    queue          text        NOT NULL CHECK (queue <> '' AND char_length(queue) <= 200),
    priority       int2        NOT NULL CHECK (priority BETWEEN 1 AND 4),
    enqueue_shard  int2        NOT NULL DEFAULT 0 CHECK (enqueue_shard >= 0),
    created_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (queue, priority, enqueue_shard)
);

-- A lane's cursor as saved when the claim rows that carried it were truncated; claim_id is the claim it was saved from.
CREATE TABLE awa.queue_claim_heads (
    lane_id   int4        PRIMARY KEY,
    claim_id  int8        NOT NULL,
    s_prev    pg_snapshot NOT NULL,
    s_cur     pg_snapshot NOT NULL,
    pos_xid   xid8        NOT NULL,
    pos_seq   int8        NOT NULL
);

CREATE TABLE awa.queue_controls (
    queue      text        PRIMARY KEY,
    paused_at  timestamptz
);

-- ---------------------------------------------------------------------------------------------------------------
-- Ring ledgers
-- ---------------------------------------------------------------------------------------------------------------

CREATE TABLE awa.ring_rotations (
    ring        text        NOT NULL CHECK (ring IN ('queue', 'claim', 'lease', 'terminal')),
    generation  int8        NOT NULL,
    slot        int2        NOT NULL,
    rotated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (ring, generation)                  -- two rotations at once: one of them conflicts
);

CREATE TABLE awa.ring_slots (
    ring       text NOT NULL,
    slot       int2 NOT NULL,
    sealed_at  timestamptz,
    closed_at  timestamptz,                         -- every item of a claim slot proved closed
    PRIMARY KEY (ring, slot)
);

INSERT INTO awa.ring_slots (ring, slot)
SELECT ring, slot FROM unnest(ARRAY['queue', 'claim', 'lease', 'terminal']) AS ring, generate_series(0, 7) AS slot;
INSERT INTO awa.ring_rotations (ring, generation, slot)
SELECT ring, 0, 0 FROM unnest(ARRAY['queue', 'claim', 'lease', 'terminal']) AS ring;

-- ---------------------------------------------------------------------------------------------------------------
-- Sequences
-- ---------------------------------------------------------------------------------------------------------------

CREATE SEQUENCE awa.job_id_seq AS int8;
-- Orders the rows of ONE transaction only, so blocks cached by a session are harmless (and save a third of the cost).
CREATE SEQUENCE awa.lane_seq_seq AS int8 CACHE 64;
-- Taken under the lane's lock; its order IS the order of a lane's claims, so it must never be cached.
CREATE SEQUENCE awa.claim_id_seq AS int8 CACHE 1;

-- ---------------------------------------------------------------------------------------------------------------
-- Queue ring: bodies, written once, read once
-- ---------------------------------------------------------------------------------------------------------------

CREATE TABLE awa.ready_entries (
    enq_xid       xid8        NOT NULL DEFAULT pg_current_xact_id(),
    lane_seq      int8        NOT NULL DEFAULT nextval('awa.lane_seq_seq'),
    job_id        int8        NOT NULL DEFAULT nextval('awa.job_id_seq'),
    run_at        timestamptz NOT NULL DEFAULT now(),
    created_at    timestamptz NOT NULL DEFAULT now(),
    lane_id       int4        NOT NULL,
    run_lease     int4        NOT NULL DEFAULT 0,   -- claims of this job before this row
    ready_slot    int2        NOT NULL,
    attempt       int2        NOT NULL DEFAULT 0,   -- counted attempts before this row
    max_attempts  int2        NOT NULL,
    kind          text        NOT NULL,
    args          json        NOT NULL,
    unique_key    bytea,
    payload       jsonb                             -- NULL unless there are metadata, tags or errors
) PARTITION BY LIST (ready_slot);

CREATE TABLE awa.ready_tombstones (
    ready_slot  int2        NOT NULL,
    lane_id     int4        NOT NULL,
    enq_xid     xid8        NOT NULL,
    lane_seq    int8        NOT NULL,
    job_id      int8        NOT NULL,
    reason      text        NOT NULL,
    buried_at   timestamptz NOT NULL DEFAULT now()
) PARTITION BY LIST (ready_slot);

-- ---------------------------------------------------------------------------------------------------------------
-- Claim ring: who took what, and how it ended. An ending lies in the slot of its claim.
-- ---------------------------------------------------------------------------------------------------------------

CREATE TABLE awa.lease_claim_batches (
    claim_id     int8        NOT NULL,
    token        int8        NOT NULL,              -- random per claim call: claim_id may repeat after a crash
    runtime_id   int8        NOT NULL,
    claimed_at   timestamptz NOT NULL,
    deadline_at  timestamptz,
    pos_xid      xid8        NOT NULL,              -- the lane's cursor after this claim: pos_xid, pos_seq, s_prev, s_cur
    pos_seq      int8        NOT NULL,
    lane_id      int4        NOT NULL,
    n            int4        NOT NULL CHECK (n BETWEEN 1 AND 32767),
    ready_slots  int4        NOT NULL,              -- bit s: a body lies in ready slot s
    claim_slot   int2        NOT NULL,
    s_prev       pg_snapshot NOT NULL,
    s_cur        pg_snapshot NOT NULL,
    job_ids      int8[]      NOT NULL,
    run_leases   int4[]      NOT NULL
) PARTITION BY LIST (claim_slot);

CREATE TABLE awa.receipt_completion_batches (
    claim_id      int8        NOT NULL,
    flush_id      int8        NOT NULL,             -- the same flush again finds its own rows and succeeds
    completed_at  timestamptz NOT NULL,
    n             int4        NOT NULL,
    claim_slot    int2        NOT NULL,
    items         int2[]                            -- NULL: every item of the claim
) PARTITION BY LIST (claim_slot);

CREATE TABLE awa.lease_claim_closures (
    claim_id    int8        NOT NULL,
    flush_id    int8        NOT NULL,
    closed_at   timestamptz NOT NULL,
    item        int2        NOT NULL,
    claim_slot  int2        NOT NULL,
    outcome     text        NOT NULL
) PARTITION BY LIST (claim_slot);

CREATE TABLE awa.receipt_completion_tombstones (
    claim_id    int8        NOT NULL,
    buried_at   timestamptz NOT NULL DEFAULT now(),
    item        int2        NOT NULL,
    claim_slot  int2        NOT NULL
) PARTITION BY LIST (claim_slot);

-- ---------------------------------------------------------------------------------------------------------------
-- Lease ring: attempts that need a mutable row or outlive their claim slot
-- ---------------------------------------------------------------------------------------------------------------

CREATE TABLE awa.leases (
    job_id        int8        NOT NULL,
    claim_id      int8        NOT NULL,
    token         int8        NOT NULL,
    runtime_id    int8        NOT NULL,
    claimed_at    timestamptz NOT NULL,
    deadline_at   timestamptz,
    run_at        timestamptz NOT NULL,
    created_at    timestamptz NOT NULL,
    lane_id       int4        NOT NULL,
    run_lease     int4        NOT NULL,
    lease_slot    int2        NOT NULL,
    claim_slot    int2        NOT NULL,
    item          int2        NOT NULL,
    attempt       int2        NOT NULL,
    max_attempts  int2        NOT NULL,
    state         text        NOT NULL,
    kind          text        NOT NULL,
    args          json        NOT NULL,
    unique_key    bytea,
    payload       jsonb
) PARTITION BY LIST (lease_slot);

-- ---------------------------------------------------------------------------------------------------------------
-- Terminal ring: wide endings
-- ---------------------------------------------------------------------------------------------------------------

CREATE TABLE awa.done_entries (
    job_id         int8        NOT NULL,
    run_at         timestamptz NOT NULL,
    created_at     timestamptz NOT NULL,
    claimed_at     timestamptz,
    finalized_at   timestamptz NOT NULL,
    lane_id        int4        NOT NULL,
    run_lease      int4        NOT NULL,
    terminal_slot  int2        NOT NULL,
    attempt        int2        NOT NULL,
    max_attempts   int2        NOT NULL,
    state          text        NOT NULL CHECK (state IN ('failed', 'cancelled', 'completed')),
    kind           text        NOT NULL,
    args           json        NOT NULL,
    unique_key     bytea,
    payload        jsonb
) PARTITION BY LIST (terminal_slot);

CREATE TABLE awa.queue_terminal_count_deltas (
    terminal_slot  int2  NOT NULL,
    queue          text  NOT NULL,
    state          text  NOT NULL,
    delta          int8  NOT NULL
) PARTITION BY LIST (terminal_slot);

DO $children$
DECLARE
    v_ring record;
    v_slot int;
    v_child text;
    v_index text;
BEGIN
    -- Two indexes on a ready child and no more: each costs every enqueue.
    FOR v_ring IN
        SELECT * FROM (VALUES
            ('ready_entries',                 ARRAY['(lane_id, enq_xid, lane_seq)', '(job_id)']),
            ('ready_tombstones',              ARRAY['(job_id)']),
            ('lease_claim_batches',           ARRAY['(lane_id, claim_id)', '(claim_id)',
                                                    '(deadline_at) WHERE deadline_at IS NOT NULL']),
            ('receipt_completion_batches',    ARRAY['(claim_id)']),
            ('lease_claim_closures',          ARRAY['UNIQUE (claim_slot, claim_id, item)']),
            ('receipt_completion_tombstones', ARRAY['UNIQUE (claim_slot, claim_id, item)']),
            ('leases',                        ARRAY['UNIQUE (lease_slot, job_id)']),
            ('done_entries',                  ARRAY['(job_id)', '(lane_id, finalized_at)']),
            ('queue_terminal_count_deltas',   ARRAY['(queue, state)'])
        ) AS t (parent, indexes)
    LOOP
        FOR v_slot IN 0..7 LOOP
            v_child := format('%s_%s', v_ring.parent, v_slot);
            -- Truncated, never vacuumed: insert-driven autovacuum would only read what is about to go.
            EXECUTE format('CREATE TABLE awa.%I PARTITION OF awa.%I FOR VALUES IN (%s)
                            WITH (autovacuum_vacuum_insert_threshold = -1)', v_child, v_ring.parent, v_slot);
            FOREACH v_index IN ARRAY v_ring.indexes LOOP
                EXECUTE format('CREATE %s INDEX ON awa.%I %s',
                               CASE WHEN v_index LIKE 'UNIQUE %' THEN 'UNIQUE' ELSE '' END,
                               v_child, replace(v_index, 'UNIQUE ', ''));
            END LOOP;
        END LOOP;
    END LOOP;
END
$children$;

-- ---------------------------------------------------------------------------------------------------------------
-- Backlog: ordinary rows
-- ---------------------------------------------------------------------------------------------------------------

CREATE TABLE awa.deferred_jobs (
    job_id        int8        PRIMARY KEY DEFAULT nextval('awa.job_id_seq'),
    run_at        timestamptz NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    lane_id       int4        NOT NULL,
    run_lease     int4        NOT NULL DEFAULT 0,
    attempt       int2        NOT NULL DEFAULT 0,
    max_attempts  int2        NOT NULL,
    state         text        NOT NULL DEFAULT 'scheduled' CHECK (state IN ('scheduled', 'retryable')),
    kind          text        NOT NULL,
    args          json        NOT NULL,
    unique_key    bytea,
    payload       jsonb
);
CREATE INDEX ON awa.deferred_jobs (run_at, job_id);
