-- slot_is_empty: whether no table of a ring has a row in a slot.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  none (reads the children that ring_tables names)
-- Model:  SlotIsEmpty
CREATE OR REPLACE FUNCTION awa.slot_is_empty(p_ring text, p_slot int2) RETURNS bool
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_table text;
    v_found bool;
BEGIN
    FOREACH v_table IN ARRAY awa.ring_tables(p_ring) LOOP
        EXECUTE format('SELECT EXISTS (SELECT 1 FROM awa.%I)', v_table || '_' || p_slot) INTO v_found;
        IF v_found THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$$;
