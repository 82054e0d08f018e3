-- materialize_attempts: gives running attempts whose claim slot was sealed long enough ago a lease each, with a copy of the body, so that
-- a job of six hours keeps neither its claim slot nor its ready slot from being pruned. At most p_limit; how many. An attempt whose
-- claim is being ended at the moment stays for the next time.
-- Reads:  ring_slots, ring_rotations, storage_settings and what unfinished_claims and open_items read
-- Writes: what save_progress writes
-- Locks:  claim advisory (by TRY)
-- Model:  MaterializeAttempts
CREATE OR REPLACE FUNCTION awa.materialize_attempts(p_limit int4, p_now timestamptz DEFAULT clock_timestamp()) RETURNS int4
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET jit = off SET lock_timeout = '1s' AS $$
DECLARE
    v_slot int2;
    v_claim record;
    v_item int2;
    v_done int4 := 0;
BEGIN
    FOR v_slot IN
        SELECT s.slot FROM awa.ring_slots s, awa.storage_settings g
        WHERE s.ring = 'claim' AND s.closed_at IS NULL AND s.sealed_at <= p_now - make_interval(secs => g.materialize_after)
        ORDER BY s.generation
    LOOP
        FOR v_claim IN SELECT u.* FROM awa.unfinished_claims u WHERE u.claim_slot = v_slot ORDER BY u.claim_id LOOP
            FOR v_item IN SELECT o.item FROM awa.open_items(v_slot, v_claim.claim_id) o LOOP
                IF v_done >= p_limit THEN
                    RETURN v_done;
                END IF;
                v_done := v_done + (awa.save_progress(v_claim.runtime_id, v_slot, v_claim.claim_id, v_claim.token, v_item, NULL, NULL)
                                    = 'saved')::int4;
            END LOOP;
        END LOOP;
    END LOOP;
    RETURN v_done;
END
$$;
