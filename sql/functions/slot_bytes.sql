-- slot_bytes: what a slot's tables, indexes and long values occupy.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  none (waits for a lock on the children that ring_tables names)
-- Model:  SlotBytes
CREATE OR REPLACE FUNCTION awa.slot_bytes(p_ring text, p_slot int2) RETURNS int8
LANGUAGE sql VOLATILE AS $$
    SELECT sum(pg_total_relation_size(format('awa.%I', t.name || '_' || p_slot)::regclass))::int8
    FROM unnest(awa.ring_tables(p_ring)) AS t (name)
$$;
