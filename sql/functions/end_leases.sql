-- end_leases: ends attempts that have a lease, by their receipts, as end_open_items does for claims: one by one where that is
-- needed, so that one which cannot be ended keeps no other from it.
-- Reads:  leases and what finalize_attempts reads
-- Writes: what finalize_attempts writes
-- Locks:  claim advisory (by TRY)
-- Model:  EndLeases
CREATE OR REPLACE FUNCTION awa.end_leases(p_leases awa.leases[], p_outcome text, OUT ended int4, OUT stuck int4, OUT busy int4)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_lease awa.leases;
    v_verdict text;
    v_state text;
    v_message text;
BEGIN
    ended := 0;
    stuck := 0;
    busy := 0;
    FOREACH v_lease IN ARRAY p_leases LOOP
        BEGIN
            v_verdict := NULL;
            SELECT f.verdict INTO v_verdict FROM awa.finalize_attempts(v_lease.runtime_id, -1, json_build_array(
                json_build_object('claim_slot', v_lease.claim_slot, 'claim_id', v_lease.claim_id, 'token', v_lease.token,
                                  'item', v_lease.item, 'outcome', p_outcome))) f;
            ended := ended + (v_verdict IS NULL)::int4;
            busy := busy + coalesce((v_verdict = 'busy')::int4, 0);
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT;
            IF v_state ~ '^(40|53|55|57|58|XX|AW)' THEN
                RAISE;
            END IF;
            stuck := stuck + 1;
            RAISE WARNING 'awa: job % cannot be ended as %: %', v_lease.job_id, p_outcome, v_message;
        END;
    END LOOP;
END
$$;
