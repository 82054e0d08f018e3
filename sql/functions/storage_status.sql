-- storage_status: the slots of the rings: which is current, since when it is sealed and proved closed, what it occupies, why it was held
-- when it was looked at last and since when. Bytes are NULL of a slot that is locked: this waits for nobody longer than 20 ms.
-- Reads:  ring_slots, ring_rotations
-- Writes: nothing
-- Locks:  none
-- Model:  StorageStatus
CREATE OR REPLACE FUNCTION awa.storage_status() RETURNS TABLE (
    ring text, slot int2, is_current bool, generation int8, began_at timestamptz, sealed_at timestamptz, closed_at timestamptz,
    prunes int8, bytes int8, held_reason text, held_since timestamptz
)
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '20ms' AS $$
DECLARE
    v_slot record;
    v_bytes int8;
BEGIN
    FOR v_slot IN
        SELECT s.*, c.slot IS NOT NULL AS is_current, r.rotated_at
        FROM awa.ring_slots s
        LEFT JOIN LATERAL (SELECT x.slot FROM awa.current_slot(s.ring) x WHERE x.slot = s.slot) c ON true
        LEFT JOIN awa.ring_rotations r ON r.ring = s.ring AND r.generation = s.generation
        ORDER BY array_position(ARRAY['queue', 'claim', 'lease', 'terminal'], s.ring), s.slot
    LOOP
        BEGIN
            v_bytes := awa.slot_bytes(v_slot.ring, v_slot.slot);
        EXCEPTION WHEN lock_not_available THEN
            v_bytes := NULL;
        END;
        RETURN QUERY SELECT v_slot.ring, v_slot.slot, v_slot.is_current, v_slot.generation, v_slot.rotated_at, v_slot.sealed_at,
                            v_slot.closed_at, v_slot.prunes, v_bytes, v_slot.held_reason, v_slot.held_since;
    END LOOP;
END
$$;
