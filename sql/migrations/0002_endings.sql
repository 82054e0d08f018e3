-- Who runs, who leads, where jobs go that will not be tried again, and which keys are taken.

-- A process that claims. Whoever beats for it (supervisor_id) is not the process that runs handlers. Bounded by the fleet.
CREATE TABLE awa.runtime_instances (
    runtime_id     int8        PRIMARY KEY,
    supervisor_id  int8        NOT NULL,
    pid            int4        NOT NULL,
    hostname       text        NOT NULL,
    release        text        NOT NULL,
    queues         jsonb       NOT NULL DEFAULT '{}',
    started_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    last_seen      timestamptz NOT NULL DEFAULT clock_timestamp(),
    dead_at        timestamptz,                         -- its claims are rescued from then on, its endings refused
    look_at        timestamptz,                         -- when rescue looks (again) for its claims; NULL: not (any more)
    UNIQUE (supervisor_id, pid, started_at)
) WITH (fillfactor = 50);                               -- a beat is a HOT update

-- One row: who does the chores that one process should do, until when.
CREATE TABLE awa.leader (
    singleton   bool        PRIMARY KEY DEFAULT true CHECK (singleton),
    runtime_id  int8        NOT NULL,
    expires_at  timestamptz NOT NULL
) WITH (fillfactor = 50);
INSERT INTO awa.leader (runtime_id, expires_at) VALUES (0, '-infinity');

-- Whether exhausted jobs go to the dead-letter queue: the kind's word, then the queue's, then yes.
ALTER TABLE awa.queue_controls ADD COLUMN dead_letter bool;
CREATE TABLE awa.kind_controls (
    kind         text PRIMARY KEY,
    dead_letter  bool
);

CREATE TABLE awa.dlq_entries (
    job_id         int8        PRIMARY KEY,
    run_at         timestamptz NOT NULL,
    created_at     timestamptz NOT NULL,
    claimed_at     timestamptz,
    finalized_at   timestamptz NOT NULL,
    lane_id        int4        NOT NULL,
    run_lease      int4        NOT NULL,
    attempt        int2        NOT NULL,
    max_attempts   int2        NOT NULL,
    kind           text        NOT NULL,
    args           json        NOT NULL,
    unique_key     bytea,
    payload        jsonb
);
CREATE INDEX ON awa.dlq_entries (lane_id, finalized_at);

-- A key belongs to its job while the job is in one of these states and the key has not expired. That is judged when somebody
-- wants the key, so no ending has to release anything and nothing can be forgotten; stale rows are swept.
CREATE TABLE awa.job_unique_claims (
    unique_key  bytea       PRIMARY KEY,
    job_id      int8        NOT NULL,
    expires_at  timestamptz NOT NULL,
    states      text[]      NOT NULL
);

-- A lane in which an unclaimed job was cancelled: its claims look for tombstones. Cold: set once, unset when they are passed.
ALTER TABLE awa.queue_lanes ADD COLUMN has_tombstones bool NOT NULL DEFAULT false;

-- Promotion takes the due jobs of the lanes that are not paused, each in its order.
CREATE INDEX ON awa.deferred_jobs (lane_id, run_at, job_id);

ALTER TABLE awa.leases ADD CONSTRAINT leases_state_check CHECK (state IN ('running', 'waiting'));

DO $children$
DECLARE
    v_slot int;
BEGIN
    FOR v_slot IN 0..7 LOOP
        EXECUTE format('CREATE INDEX ON awa.lease_claim_batches_%s (runtime_id, claim_id)', v_slot);
        EXECUTE format('CREATE INDEX ON awa.lease_claim_batches_%s (deadline_at, claim_id) WHERE deadline_at IS NOT NULL', v_slot);
        EXECUTE format('DROP INDEX awa.lease_claim_batches_%s_deadline_at_idx', v_slot);
        EXECUTE format('CREATE INDEX ON awa.ready_tombstones_%s (lane_id, enq_xid, lane_seq)', v_slot);
        EXECUTE format('CREATE INDEX ON awa.leases_%s (claim_id, item)', v_slot);
        EXECUTE format('CREATE INDEX ON awa.leases_%s (runtime_id) WHERE state = ''running''', v_slot);
        EXECUTE format('CREATE INDEX ON awa.leases_%s (deadline_at) WHERE deadline_at IS NOT NULL', v_slot);
    END LOOP;
END
$children$;
