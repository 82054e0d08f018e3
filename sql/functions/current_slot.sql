-- current_slot: the slot a ring is filling now, which is the one its newest rotation names. Inlined where it stands in FROM.
-- Reads:  ring_rotations
-- Writes: nothing
-- Locks:  none
-- Model:  CurrentSlot
CREATE OR REPLACE FUNCTION awa.current_slot(p_ring text) RETURNS TABLE (slot int2)
LANGUAGE sql STABLE ROWS 1 AS $$
    SELECT r.slot FROM awa.ring_rotations r WHERE r.ring = p_ring ORDER BY r.generation DESC LIMIT 1
$$;
