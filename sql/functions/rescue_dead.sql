-- rescue_dead: ends the open attempts of dead runtimes, at most about p_limit of them, and wakes their queues. Of one runtime or
-- of all that are due; as rescued (the attempt counts) or, for a process that was ended on purpose, as released (it does not).
-- Looks at nothing while nobody is dead. A runtime is looked at again for a minute, longer than any claim call may last: one
-- that was under way at its death may commit after it. more: there is work left for which another call need not wait.
-- Reads:  runtime_instances, queue_lanes, leases, ring_slots and what open_claims and end_open_items read
-- Writes: runtime_instances and what end_open_items and rescue_leases write
-- Locks:  runtime_instances rows (SKIP LOCKED), claim advisory (by TRY)
-- Model:  RescueDead
CREATE OR REPLACE FUNCTION awa.rescue_dead(
    p_limit int4, p_runtime_id int8 DEFAULT NULL, p_outcome text DEFAULT 'rescued', p_now timestamptz DEFAULT clock_timestamp(),
    OUT rescued int4, OUT stuck int4, OUT more bool
)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_runtime record;
    v_claim record;
    v_done record;
    v_left bool;
    v_lanes int4[] := '{}';
    v_epoch int8;
BEGIN
    IF p_outcome NOT IN ('rescued', 'released') THEN
        RAISE EXCEPTION 'awa.rescue_dead: p_outcome is rescued or released, not %', p_outcome USING ERRCODE = 'AWA02';
    END IF;
    rescued := 0;
    stuck := 0;
    more := false;
    FOR v_runtime IN
        SELECT r.runtime_id, r.dead_at FROM awa.runtime_instances r
        WHERE r.dead_at IS NOT NULL
          AND CASE WHEN p_runtime_id IS NULL THEN r.look_at <= p_now ELSE r.runtime_id = p_runtime_id END
        ORDER BY r.dead_at
        FOR UPDATE SKIP LOCKED
    LOOP
        v_left := false;
        v_epoch := awa.prune_epoch();
        FOR v_claim IN SELECT * FROM awa.open_claims(v_runtime.runtime_id) LOOP
            IF rescued >= p_limit THEN
                more := true;
                EXIT;
            END IF;
            SELECT * INTO v_done FROM awa.end_open_items(v_claim.claim_slot, v_claim.claim_id, p_outcome);
            rescued := rescued + v_done.ended;
            stuck := stuck + v_done.stuck;
            v_left := v_left OR v_done.busy OR v_done.stuck > 0;
            v_lanes := v_lanes || v_claim.lane_id;
        END LOOP;
        EXIT WHEN more;
        IF rescued >= p_limit THEN
            more := true;
            EXIT;
        END IF;
        SELECT * INTO v_done FROM awa.rescue_leases(v_runtime.runtime_id, p_outcome, p_limit - rescued, p_now);
        rescued := rescued + v_done.ended;
        stuck := stuck + v_done.stuck;
        v_left := v_left OR v_done.busy > 0 OR v_done.stuck > 0;
        v_lanes := v_lanes || v_done.lanes;
        more := v_done.more;
        UPDATE awa.runtime_instances r
        SET look_at = CASE WHEN v_left OR awa.prune_epoch() <> v_epoch OR p_now < v_runtime.dead_at + interval '60 s'
                           THEN p_now + interval '5 s' END
        WHERE r.runtime_id = v_runtime.runtime_id AND NOT more;
        EXIT WHEN more;
    END LOOP;
    PERFORM pg_notify('awa', l.queue) FROM awa.queue_lanes l WHERE l.lane_id = ANY (v_lanes) GROUP BY l.queue;
END
$$;
