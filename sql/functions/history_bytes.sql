-- history_bytes: what completed jobs occupy: all claim slots, and the ready slots that are sealed and wait for nothing but their claims.
-- A backlog is no history: slots with jobs still to be handed out are left out.
-- Reads:  ring_slots
-- Writes: nothing
-- Locks:  none
-- Model:  HistoryBytes
CREATE OR REPLACE FUNCTION awa.history_bytes() RETURNS int8
LANGUAGE sql VOLATILE AS $$
    SELECT coalesce(sum(awa.slot_bytes(s.ring, s.slot)), 0)::int8
    FROM awa.ring_slots s
    WHERE s.ring = 'claim' OR (s.ring = 'queue' AND s.held_reason = 'its jobs'' claims are kept')
$$;
