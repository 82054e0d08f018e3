-- close_claim_slot: proves that every item of every claim in a sealed claim slot has ended, and counts its completions by queue. Proved
-- once: closures only grow, and no claim can come to the slot any more. That is what the lanes are locked for, one after the other:
-- a claim reads the current slot under its lane's lock, so a claim on a lane that was free once after the seal goes elsewhere.
-- Returns false when an item is open, or a lane was busy.
-- Reads:  queue_lanes, ring_rotations
-- Writes: ring_slots, queue_terminal_live_counts
-- Locks:  lane advisory (a wait of 10 ms each, one at a time)
-- Model:  CloseClaimSlot
CREATE OR REPLACE FUNCTION awa.close_claim_slot(p_slot int2, p_now timestamptz DEFAULT clock_timestamp()) RETURNS bool
LANGUAGE plpgsql VOLATILE
SET jit = off AS $$
DECLARE
    v_lane_id int4;
    v_busy bool;
    v_closed bool;
    v_updated int4;
BEGIN
    FOR v_pass IN 1..2 LOOP
        EXECUTE format($sql$
            SELECT (SELECT coalesce(sum(b.n), 0) FROM awa.%I b)
                   = (SELECT coalesce(sum(c.n), 0) FROM awa.%I c) + (SELECT count(*) FROM awa.%I)
            $sql$, 'lease_claim_batches_' || p_slot, 'receipt_completion_batches_' || p_slot, 'lease_claim_closures_' || p_slot)
        INTO v_closed;
        IF NOT v_closed OR p_slot = (SELECT s.slot FROM awa.current_slot('claim') s) THEN
            RETURN false;
        END IF;
        EXIT WHEN v_pass = 2;
        FOR v_lane_id IN SELECT l.lane_id FROM awa.queue_lanes l ORDER BY l.lane_id LOOP
            v_busy := true;
            BEGIN
                v_busy := NOT awa.wait_lock_lane(v_lane_id);
                -- Undoes the block, and with it the lock: to have had it is enough.
                RAISE EXCEPTION USING ERRCODE = 'AWA04';
            EXCEPTION WHEN SQLSTATE 'AWA04' THEN
                NULL;
            END;
            IF v_busy THEN
                RETURN false;
            END IF;
        END LOOP;
    END LOOP;
    EXECUTE format($sql$
        UPDATE awa.ring_slots s SET closed_at = $1, ready_slots = (SELECT coalesce(bit_or(b.ready_slots), 0) FROM awa.%I b)
        WHERE s.ring = 'claim' AND s.slot = %s AND s.closed_at IS NULL
        $sql$, 'lease_claim_batches_' || p_slot, p_slot) USING p_now;
    GET DIAGNOSTICS v_updated = ROW_COUNT;
    IF v_updated = 0 THEN
        RETURN true;  -- by somebody else, at the same time; nobody prunes it while this transaction has read it
    END IF;
    EXECUTE format($sql$
        INSERT INTO awa.queue_terminal_live_counts (ring, slot, queue, state, n)
        SELECT 'claim', %s, l.queue, 'completed', sum(c.n)
        FROM (SELECT x.claim_id, x.n FROM awa.%I x UNION ALL SELECT x.claim_id, 1 FROM awa.%I x WHERE x.outcome = 'completed') c
        JOIN awa.%I b ON b.claim_id = c.claim_id
        JOIN awa.queue_lanes l ON l.lane_id = b.lane_id
        GROUP BY l.queue
        $sql$, p_slot, 'receipt_completion_batches_' || p_slot, 'lease_claim_closures_' || p_slot, 'lease_claim_batches_' || p_slot);
    RETURN true;
END
$$;
