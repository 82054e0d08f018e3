-- lock_unique_copies: one transaction at a time may take keys in more than one call of take_unique_keys; the others wait here,
-- before they have taken any. Two of them could otherwise wait for each other's keys.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  copy advisory (waits)
-- Model:  LockUniqueCopies
CREATE OR REPLACE FUNCTION awa.lock_unique_copies() RETURNS void
LANGUAGE sql VOLATILE AS $$
    SELECT pg_advisory_xact_lock(1635213579, 0)
$$;
