-- rotate_ring: seals a ring's current slot when it has grown old or large enough and makes an empty one current. Any empty slot may
-- come next, so a slot that is held for long stops no other. Returns 'rotated', or why not: 'idle' (the current slot is empty: nothing
-- is written), 'young', 'held' (no slot is free: the current one goes on being filled), 'raced' (somebody else has rotated it),
-- 'locked' (somebody keeps a table of it locked).
-- p_force rotates a slot that is young, too.
-- Reads:  ring_rotations and what ring_limits reads
-- Writes: ring_rotations, ring_slots
-- Locks:  none
-- Model:  RotateRing
CREATE OR REPLACE FUNCTION awa.rotate_ring(p_ring text, p_force bool DEFAULT false, p_now timestamptz DEFAULT clock_timestamp())
RETURNS text
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '10ms' AS $$
DECLARE
    v_current record;
    v_limits record;
    v_next int2;
BEGIN
    SELECT r.generation, r.slot, r.rotated_at INTO v_current
    FROM awa.ring_rotations r, awa.current_slot(p_ring) s
    WHERE r.ring = p_ring AND r.slot = s.slot
      AND NOT EXISTS (SELECT 1 FROM awa.ring_rotations n WHERE n.ring = p_ring AND n.generation > r.generation);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'awa.rotate_ring: there is no ring %', p_ring USING ERRCODE = 'AWA02';
    END IF;
    IF awa.slot_is_empty(p_ring, v_current.slot) THEN
        RETURN 'idle';
    END IF;
    v_limits := awa.ring_limits(p_ring);
    IF NOT p_force AND p_now < v_current.rotated_at + make_interval(secs => least(v_limits.rotate_after, 1e9))
       AND awa.slot_bytes(p_ring, v_current.slot) < v_limits.rotate_bytes THEN
        RETURN 'young';
    END IF;
    FOR v_step IN 1..7 LOOP
        v_next := (v_current.slot + v_step) % 8;
        EXIT WHEN awa.slot_is_empty(p_ring, v_next);
        v_next := NULL;
    END LOOP;
    IF v_next IS NULL THEN
        RETURN 'held';
    END IF;
    -- The key decides between two that rotate at once.
    INSERT INTO awa.ring_rotations (ring, generation, slot, rotated_at)
    VALUES (p_ring, v_current.generation + 1, v_next, p_now)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN 'raced';
    END IF;
    UPDATE awa.ring_slots s SET sealed_at = p_now WHERE s.ring = p_ring AND s.slot = v_current.slot;
    UPDATE awa.ring_slots s SET generation = v_current.generation + 1, sealed_at = NULL, closed_at = NULL,
        counted_to = 0, uncounted = '{}'
    WHERE s.ring = p_ring AND s.slot = v_next;
    DELETE FROM awa.ring_rotations r WHERE r.ring = p_ring AND r.generation < v_current.generation - 14;
    RETURN 'rotated';
EXCEPTION WHEN lock_not_available THEN
    RETURN 'locked';
END
$$;
