-- ended_elsewhere: which of these attempts have ended although their handlers still run: cancelled, deleted, expired or rescued. An
-- attempt of whose claim nothing is left goes on as a lease or not at all. Says nothing when a slot was pruned meanwhile: ask again.
-- Reads:  lease_claim_batches, leases, ring_slots and what closed_items reads
-- Writes: nothing
-- Locks:  none
-- Model:  EndedElsewhere
CREATE OR REPLACE FUNCTION awa.ended_elsewhere(p_claim_slots int2[], p_claim_ids int8[], p_items int2[])
RETURNS TABLE (claim_id int8, item int2, outcome text)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET jit = off AS $$
#variable_conflict use_column
DECLARE
    v_epoch int8 := awa.prune_epoch();
    v_ended jsonb;
BEGIN
    SELECT jsonb_agg(jsonb_build_object('claim_id', i.claim_id, 'item', i.item, 'outcome', coalesce(c.outcome, 'gone')))
    INTO v_ended
    FROM unnest(p_claim_slots, p_claim_ids, p_items) AS i (claim_slot, claim_id, item)
    LEFT JOIN LATERAL (
        SELECT x.outcome FROM awa.closed_items(i.claim_slot, i.claim_id) x WHERE x.item = i.item
    ) c ON true
    WHERE CASE
        WHEN c.outcome = 'materialised' OR NOT EXISTS (SELECT 1 FROM awa.lease_claim_batches b
                                                       WHERE b.claim_slot = i.claim_slot AND b.claim_id = i.claim_id)
        THEN NOT EXISTS (SELECT 1 FROM awa.leases l WHERE l.claim_id = i.claim_id AND l.item = i.item)
        ELSE c.outcome IS NOT NULL END;
    IF v_ended IS NOT NULL AND awa.prune_epoch() = v_epoch THEN
        RETURN QUERY SELECT e.* FROM jsonb_to_recordset(v_ended) AS e (claim_id int8, item int2, outcome text);
    END IF;
END
$$;
