-- rebase: makes a database that was restored into a younger cluster fit to work: whatever is told by transaction ids is told anew, in one
-- transaction, and every lane begins from its beginning. Jobs that wait keep their order; attempts that ran go back to the head of
-- their lanes and do not count, for their workers are not here; completed jobs are kept as wide endings; runtimes are forgotten, and
-- clients told from those of the original by a new install_id. Returns how many jobs were put back, kept waiting, and kept as completed.
-- Does nothing, and returns zeros, where needs_rebase says no, unless p_force.
-- Hazard: to be called before anything is enqueued or claimed. Locks everything for as long as it takes.
-- Reads:  ring_rotations and what needs_rebase and claim_items and unfinished_claims read
-- Writes: ready_entries, ready_tombstones, lease_claim_batches, receipt_completion_batches, lease_claim_closures, receipt_results,
--         receipt_completion_tombstones, leases, done_entries, queue_claim_heads, queue_lanes, queue_meta, queue_terminal_live_counts,
--         ring_slots, runtime_instances, leader
-- Locks:  ring children (ACCESS EXCLUSIVE)
-- Model:  Rebase
CREATE OR REPLACE FUNCTION awa.rebase(p_force bool DEFAULT false, OUT running int8, OUT available int8, OUT completed int8)
LANGUAGE plpgsql VOLATILE
SET jit = off AS $$
BEGIN
    running := 0;
    available := 0;
    completed := 0;
    LOCK TABLE awa.ready_entries, awa.ready_tombstones, awa.lease_claim_batches, awa.receipt_completion_batches,
        awa.lease_claim_closures, awa.receipt_results, awa.receipt_completion_tombstones, awa.leases, awa.done_entries
        IN ACCESS EXCLUSIVE MODE;
    -- New statements after the locks.
    IF NOT p_force AND NOT awa.needs_rebase() THEN
        RETURN;
    END IF;
    CREATE TEMPORARY TABLE awa_rebase ON COMMIT DROP AS
    SELECT 1 AS part, x.claim_id AS first, x.item::int8 AS second, x.lane_id, x.job_id, x.run_at, x.created_at, x.run_lease, x.attempt,
           x.max_attempts, x.kind, x.args, x.unique_key, x.payload, 0::numeric AS xid
    FROM awa.leases x WHERE x.state = 'running'
    UNION ALL
    SELECT 1, i.claim_id, i.item, i.lane_id, r.job_id, r.run_at, r.created_at, i.run_lease, r.attempt, r.max_attempts, r.kind, r.args,
           r.unique_key, r.payload, 0
    FROM awa.unfinished_claims u
    JOIN awa.claim_items i ON i.claim_slot = u.claim_slot AND i.claim_id = u.claim_id AND i.outcome IS NULL
    JOIN awa.ready_entries r ON r.job_id = i.job_id AND r.run_lease = i.run_lease - 1
    UNION ALL
    -- As claims would take them: what the lane's window has left before what has committed since.
    SELECT 2, CASE WHEN awa.is_consumed(r.enq_xid, r.lane_seq, c.s_cur, c.s_cur, '0', 0) THEN 0 ELSE 1 END, r.lane_seq, r.lane_id,
           r.job_id, r.run_at, r.created_at, r.run_lease, r.attempt, r.max_attempts, r.kind, r.args, r.unique_key, r.payload,
           r.enq_xid::text::numeric
    FROM awa.queue_lanes l
    CROSS JOIN LATERAL awa.lane_cursor(l.lane_id) c
    JOIN awa.ready_entries r ON r.lane_id = l.lane_id
    WHERE NOT awa.is_consumed(r.enq_xid, r.lane_seq, c.s_prev, c.s_cur, c.pos_xid, c.pos_seq)
      AND NOT EXISTS (SELECT 1 FROM awa.ready_tombstones t
                      WHERE t.lane_id = r.lane_id AND t.enq_xid = r.enq_xid AND t.lane_seq = r.lane_seq);
    SELECT count(*) FILTER (WHERE b.part = 1), count(*) FILTER (WHERE b.part = 2) INTO running, available FROM awa_rebase b;
    INSERT INTO awa.done_entries (job_id, run_at, created_at, claimed_at, finalized_at, lane_id, run_lease, terminal_slot, attempt,
                                  max_attempts, state, kind, args, unique_key, payload)
    SELECT r.job_id, r.run_at, r.created_at, i.claimed_at, i.closed_at, i.lane_id, i.run_lease, s.slot, (r.attempt + 1)::int2,
           r.max_attempts, 'completed', r.kind, r.args, r.unique_key,
           awa.with_result(r.payload, (SELECT x.result FROM awa.receipt_results x
                                       WHERE x.claim_slot = i.claim_slot AND x.claim_id = i.claim_id AND x.item = i.item))
    FROM awa.claim_items i
    JOIN awa.ready_entries r ON r.job_id = i.job_id AND r.run_lease = i.run_lease - 1
    CROSS JOIN awa.current_slot('terminal') s
    WHERE i.outcome = 'completed'
      AND NOT EXISTS (SELECT 1 FROM awa.receipt_completion_tombstones t
                      WHERE t.claim_slot = i.claim_slot AND t.claim_id = i.claim_id AND t.item = i.item);
    GET DIAGNOSTICS completed = ROW_COUNT;

    TRUNCATE awa.ready_entries;
    TRUNCATE awa.ready_tombstones;
    TRUNCATE awa.lease_claim_batches;
    TRUNCATE awa.receipt_completion_batches;
    TRUNCATE awa.lease_claim_closures;
    TRUNCATE awa.receipt_results;
    TRUNCATE awa.receipt_completion_tombstones;
    DELETE FROM awa.leases x WHERE x.state = 'running';
    DELETE FROM awa.queue_claim_heads;
    DELETE FROM awa.queue_terminal_live_counts c WHERE c.ring = 'claim';
    UPDATE awa.queue_lanes l SET has_tombstones = false WHERE l.has_tombstones;
    UPDATE awa.ring_slots s
    SET sealed_at = NULL, closed_at = NULL, ready_slots = 0, prunes = s.prunes + 1, held_reason = NULL, held_since = NULL
    WHERE s.ring IN ('queue', 'claim');
    DELETE FROM awa.runtime_instances;
    UPDATE awa.leader l SET expires_at = '-infinity';
    UPDATE awa.queue_meta m SET install_id = gen_random_uuid();

    INSERT INTO awa.ready_entries (ready_slot, lane_id, job_id, run_at, created_at, run_lease, attempt, max_attempts, kind, args,
                                   unique_key, payload)
    SELECT s.slot, b.lane_id, b.job_id, b.run_at, b.created_at, b.run_lease, b.attempt, b.max_attempts, b.kind, b.args, b.unique_key,
           b.payload
    FROM awa_rebase b, awa.current_slot('queue') s
    ORDER BY b.lane_id, b.part, b.first, b.xid, b.second;
    DROP TABLE awa_rebase;
END
$$;
