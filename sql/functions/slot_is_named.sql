-- slot_is_named: whether a claim that is kept, open or ended, took jobs out of a ready slot. Of claim slots proved closed that is
-- remembered; the claims of the others are read, those after p_after_claim_id.
-- Reads:  ring_slots, lease_claim_batches
-- Writes: nothing
-- Locks:  none
-- Model:  SlotIsNamed
CREATE OR REPLACE FUNCTION awa.slot_is_named(p_slot int2, p_after_claim_id int8) RETURNS bool
LANGUAGE sql STABLE
SET enable_seqscan = off SET jit = off SET plan_cache_mode = force_generic_plan AS $$
    SELECT EXISTS (
        SELECT 1 FROM awa.ring_slots s
        WHERE s.ring = 'claim' AND s.closed_at IS NOT NULL AND s.ready_slots & (1 << p_slot::int4) <> 0
    ) OR EXISTS (
        SELECT 1 FROM awa.lease_claim_batches b
        WHERE b.claim_slot = ANY (ARRAY(SELECT s.slot FROM awa.ring_slots s WHERE s.ring = 'claim' AND s.closed_at IS NULL))
          AND b.claim_id > p_after_claim_id AND b.ready_slots & (1 << p_slot::int4) <> 0
    )
$$;
