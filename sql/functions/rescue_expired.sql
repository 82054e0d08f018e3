-- rescue_expired: ends attempts that run past the deadline of their claim, or wait past their own, and wakes their queues.
-- Claims are walked in the order of their deadlines from the position given, at most p_limit of them, each looked at once; the
-- answer says where the next call begins, and the first claim of this walk that is still open (busy or stuck), to which the
-- caller comes back after the walk has reached the end: nothing that is stuck hides anything behind it.
-- Reads:  lease_claim_batches, queue_lanes and what end_open_items and rescue_leases read
-- Writes: what end_open_items and rescue_leases write
-- Locks:  claim advisory (by TRY)
-- Model:  RescueExpired
CREATE OR REPLACE FUNCTION awa.rescue_expired(
    p_after_at timestamptz, p_after_claim_id int8, p_limit int4, p_now timestamptz DEFAULT clock_timestamp(),
    OUT rescued int4, OUT stuck int4, OUT more bool,
    OUT at timestamptz, OUT claim_id int8, OUT open_at timestamptz, OUT open_claim_id int8
)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    v_claim record;
    v_done record;
    v_walked int4 := 0;
    v_lanes int4[] := '{}';
BEGIN
    rescued := 0;
    stuck := 0;
    IF p_after_at > p_now THEN
        -- The clock was set back since: what is due now may lie before the position.
        p_after_at := '-infinity';
        p_after_claim_id := 0;
    END IF;
    at := p_after_at;
    claim_id := p_after_claim_id;
    FOR v_claim IN
        SELECT b.claim_slot, b.claim_id, b.lane_id, b.deadline_at FROM awa.lease_claim_batches b
        WHERE b.deadline_at IS NOT NULL AND (b.deadline_at, b.claim_id) > (p_after_at, p_after_claim_id) AND b.deadline_at <= p_now
        ORDER BY b.deadline_at, b.claim_id
        LIMIT p_limit
    LOOP
        SELECT * INTO v_done FROM awa.end_open_items(v_claim.claim_slot, v_claim.claim_id, 'expired');
        v_walked := v_walked + 1;
        rescued := rescued + v_done.ended;
        stuck := stuck + v_done.stuck;
        IF v_done.ended > 0 THEN
            v_lanes := v_lanes || v_claim.lane_id;
        END IF;
        IF open_at IS NULL AND (v_done.busy OR v_done.stuck > 0) THEN
            open_at := at;
            open_claim_id := claim_id;
        END IF;
        at := v_claim.deadline_at;
        claim_id := v_claim.claim_id;
    END LOOP;
    more := v_walked = p_limit;

    SELECT * INTO v_done FROM awa.rescue_leases(NULL, 'expired', p_limit, p_now);
    rescued := rescued + v_done.ended;
    stuck := stuck + v_done.stuck;
    more := more OR v_done.more;
    v_lanes := v_lanes || v_done.lanes;
    PERFORM pg_notify('awa', l.queue) FROM awa.queue_lanes l WHERE l.lane_id = ANY (v_lanes) GROUP BY l.queue;
END
$$;
