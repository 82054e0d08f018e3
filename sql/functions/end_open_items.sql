-- end_open_items: ends whatever is still open of one claim, as finalize_attempts does, on behalf of the runtime that holds it.
-- An item that cannot be ended does not keep the others from it: the claim is tried whole and then item by item; only what the
-- data are guilty of counts as stuck, a fault of the server or a lock is raised. busy: somebody else is ending items of it.
-- Reads:  lease_claim_batches, receipt_completion_batches, lease_claim_closures and what finalize_attempts reads
-- Writes: what finalize_attempts writes
-- Locks:  claim advisory (by TRY)
-- Model:  EndOpenItems
CREATE OR REPLACE FUNCTION awa.end_open_items(
    p_claim_slot int2, p_claim_id int8, p_outcome text, OUT ended int4, OUT stuck int4, OUT busy bool
)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_claim record;
    v_open json[];
    v_one json;
    v_state text;
    v_message text;
BEGIN
    ended := 0;
    stuck := 0;
    busy := NOT awa.try_lock_claim(p_claim_id);
    IF busy THEN
        RETURN;
    END IF;
    SELECT b.runtime_id, b.token INTO v_claim FROM awa.lease_claim_batches b
    WHERE b.claim_slot = p_claim_slot AND b.claim_id = p_claim_id;
    v_open := ARRAY(
        SELECT json_build_object('claim_slot', p_claim_slot, 'claim_id', p_claim_id, 'token', v_claim.token, 'item', i.item,
                                 'outcome', p_outcome)
        FROM awa.open_items(p_claim_slot, p_claim_id) i
        ORDER BY i.item
    );
    IF cardinality(v_open) = 0 THEN
        RETURN;
    END IF;
    BEGIN
        PERFORM awa.finalize_attempts(v_claim.runtime_id, -1, array_to_json(v_open));
        ended := cardinality(v_open);
        RETURN;
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE;
        IF v_state ~ '^(40|53|55|57|58|XX|AW)' THEN
            RAISE;
        END IF;
    END;
    FOREACH v_one IN ARRAY v_open LOOP
        BEGIN
            PERFORM awa.finalize_attempts(v_claim.runtime_id, -1, json_build_array(v_one));
            ended := ended + 1;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS v_state = RETURNED_SQLSTATE, v_message = MESSAGE_TEXT;
            IF v_state ~ '^(40|53|55|57|58|XX|AW)' THEN
                RAISE;
            END IF;
            stuck := stuck + 1;
            RAISE WARNING 'awa: item % of claim % cannot be ended as %: %', v_one ->> 'item', p_claim_id, p_outcome, v_message;
        END;
    END LOOP;
END
$$;
