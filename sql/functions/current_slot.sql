-- current_slot: the slot a ring is filling now, which is the one its newest rotation names.
-- Reads:  ring_rotations
-- Writes: nothing
-- Locks:  none
-- Model:  CurrentSlot
CREATE OR REPLACE FUNCTION awa.current_slot(p_ring text) RETURNS int2
LANGUAGE sql STABLE AS $$
    SELECT r.slot FROM awa.ring_rotations r WHERE r.ring = p_ring ORDER BY r.generation DESC LIMIT 1
$$;
