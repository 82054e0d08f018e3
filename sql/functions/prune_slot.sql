-- prune_slot: truncates what a sealed slot has in the tables that ring_tables names, and keeps what has to outlive it, in the calling
-- transaction: of claims the lanes' cursors and the counts, of leases those that live, of endings the counts. Raises AWA04 with the
-- reason, or 55P03, when that cannot be now; the caller undoes the block, which lets go of the locks.
-- p_after_claim_id: claims up to it were looked at before. p_wait: seconds for all table locks.
-- Reads:  queue_lanes, lease_claim_batches, ready_entries and what slot_hold_reason and lane_cursor read
-- Writes: queue_claim_heads, leases, queue_terminal_live_counts, queue_terminal_rollups, ring_slots
-- Locks:  prune advisory (by TRY), lane advisory (by TRY, sorted), ring children (ACCESS EXCLUSIVE, bounded wait), claim advisory (by TRY)
-- Model:  PruneSlot
CREATE OR REPLACE FUNCTION awa.prune_slot(p_ring text, p_slot int2, p_after_claim_id int8, p_now timestamptz, p_wait float8)
RETURNS void
LANGUAGE plpgsql VOLATILE
SET jit = off AS $$
DECLARE
    v_lanes int4[] := '{}';
    v_lane_id int4;
    v_reason text;
    v_ended jsonb;
    v_deltas int8;
    v_deltas_now int8;
    v_table text;
    v_found bool;
BEGIN
    PERFORM awa.need_read_committed('prune_slot');
    IF NOT awa.try_prune_lock() THEN
        RAISE EXCEPTION 'an exact read is under way' USING ERRCODE = 'AWA04';
    END IF;
    IF p_ring = 'claim' THEN
        -- A claimer that waited for the tables while it held its lane would read an empty slot with its old snapshot, and begin again
        -- from the lane's beginning: so no lane whose newest claim goes may be held by anybody else.
        FOR v_lane_id IN
            SELECT l.lane_id FROM awa.queue_lanes l CROSS JOIN LATERAL awa.lane_cursor(l.lane_id) c
            WHERE EXISTS (SELECT 1 FROM awa.lease_claim_batches b
                          WHERE b.claim_slot = p_slot AND b.claim_id = c.claim_id AND b.lane_id = l.lane_id)
            ORDER BY l.lane_id
        LOOP
            IF NOT awa.try_lock_lane(v_lane_id) THEN
                RAISE EXCEPTION 'a lane is busy' USING ERRCODE = 'AWA04';
            END IF;
            v_lanes := v_lanes || v_lane_id;
        END LOOP;
    ELSIF p_ring = 'terminal' THEN
        -- Counted before the lock, which must be short; any change of the slot leaves a delta, by which it is noticed below
        -- (and whoever folds deltas needs the prune lock).
        EXECUTE format($sql$
            SELECT (SELECT jsonb_agg(jsonb_build_object('queue', t.queue, 'state', t.state, 'n', t.n))
                    FROM (SELECT l.queue, e.state, count(*) AS n FROM awa.%I e JOIN awa.queue_lanes l ON l.lane_id = e.lane_id
                          GROUP BY l.queue, e.state) t),
                   (SELECT count(*) FROM awa.%I)
            $sql$, 'done_entries_' || p_slot, 'queue_terminal_count_deltas_' || p_slot) INTO v_ended, v_deltas;
    END IF;

    PERFORM awa.lock_slot(awa.ring_tables(p_ring), p_slot, p_wait);
    -- From here on new statements, whose snapshots see whatever was committed before the locks were granted.
    v_reason := awa.slot_hold_reason(p_ring, p_slot, p_after_claim_id, p_now);
    IF v_reason IS NOT NULL THEN
        RAISE EXCEPTION '%', v_reason USING ERRCODE = 'AWA04';
    END IF;

    IF p_ring = 'claim' THEN
        INSERT INTO awa.queue_claim_heads AS h (lane_id, claim_id, s_prev, s_cur, pos_xid, pos_seq)
        SELECT l.lane_id, c.claim_id, c.s_prev, c.s_cur, c.pos_xid, c.pos_seq
        FROM unnest(v_lanes) WITH ORDINALITY AS l (lane_id, place) CROSS JOIN LATERAL awa.lane_cursor(l.lane_id) c
        ORDER BY l.place
        ON CONFLICT (lane_id) DO UPDATE
        SET (claim_id, s_prev, s_cur, pos_xid, pos_seq)
            = (excluded.claim_id, excluded.s_prev, excluded.s_cur, excluded.pos_xid, excluded.pos_seq);
        EXECUTE format($sql$
            SELECT jsonb_agg(jsonb_build_object('queue', t.queue, 'state', 'completed', 'n', t.n))
            FROM (SELECT u.queue, sum(u.n) AS n
                  FROM (SELECT c.queue, c.n FROM awa.queue_terminal_live_counts c WHERE c.ring = 'claim' AND c.slot = $1
                        UNION ALL
                        SELECT l.queue, -1 FROM awa.%I t JOIN awa.%I b ON b.claim_id = t.claim_id
                        JOIN awa.queue_lanes l ON l.lane_id = b.lane_id) u
                  GROUP BY u.queue) t
            $sql$, 'receipt_completion_tombstones_' || p_slot, 'lease_claim_batches_' || p_slot) USING p_slot INTO v_ended;
    ELSIF p_ring = 'lease' THEN
        -- Whoever ends one of these holds its claim and would look for the lease here: then it is not to move.
        IF EXISTS (SELECT 1 FROM (SELECT DISTINCT x.claim_id FROM awa.leases x WHERE x.lease_slot = p_slot ORDER BY 1) x
                   WHERE NOT awa.try_lock_claim(x.claim_id)) THEN
            RAISE EXCEPTION 'its attempts are being ended' USING ERRCODE = 'AWA04';
        END IF;
        INSERT INTO awa.leases (job_id, claim_id, token, runtime_id, claimed_at, deadline_at, run_at, created_at, lane_id, run_lease,
                                lease_slot, claim_slot, item, attempt, max_attempts, state, kind, args, unique_key, payload)
        SELECT x.job_id, x.claim_id, x.token, x.runtime_id, x.claimed_at, x.deadline_at, x.run_at, x.created_at, x.lane_id,
               x.run_lease, s.slot, x.claim_slot, x.item, x.attempt, x.max_attempts, x.state, x.kind, x.args, x.unique_key, x.payload
        FROM awa.leases x, awa.current_slot('lease') s
        WHERE x.lease_slot = p_slot;
    ELSIF p_ring = 'terminal' THEN
        EXECUTE format('SELECT count(*) FROM awa.%I', 'queue_terminal_count_deltas_' || p_slot) INTO v_deltas_now;
        IF v_deltas_now <> v_deltas THEN
            RAISE EXCEPTION 'its endings change' USING ERRCODE = 'AWA04';
        END IF;
        PERFORM awa.add_live_counts(p_slot);
    END IF;
    INSERT INTO awa.queue_terminal_rollups AS u (queue, state, n)
    SELECT e.queue, e.state, e.n FROM jsonb_to_recordset(v_ended) AS e (queue text, state text, n int8)
    WHERE e.n <> 0 ORDER BY e.queue, e.state
    ON CONFLICT (queue, state) DO UPDATE SET n = u.n + excluded.n;
    DELETE FROM awa.queue_terminal_live_counts c WHERE c.ring = p_ring AND c.slot = p_slot;

    FOREACH v_table IN ARRAY awa.ring_tables(p_ring) LOOP
        -- A truncated table costs new catalog rows for itself and each of its indexes: an empty one is spared them.
        EXECUTE format('SELECT pg_relation_size(''awa.%I''::regclass) > 0', v_table || '_' || p_slot) INTO v_found;
        IF v_found THEN
            EXECUTE format('TRUNCATE awa.%I', v_table || '_' || p_slot);
        END IF;
    END LOOP;
    UPDATE awa.ring_slots s
    SET prunes = s.prunes + 1, sealed_at = NULL, closed_at = NULL, ready_slots = 0, held_reason = NULL, held_since = NULL
    WHERE s.ring = p_ring AND s.slot = p_slot;
END
$$;
