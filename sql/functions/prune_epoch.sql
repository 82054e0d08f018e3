-- prune_epoch: a number that changes with every prune and fold. TRUNCATE is not MVCC-safe: a statement whose snapshot is older than
-- a prune, and that reaches the table after it, reads an empty slot where there were rows. A short read therefore asks for the epoch
-- in a statement before and in one after, and begins again when they differ; a long one takes share_prune_lock first.
-- Reads:  ring_slots
-- Writes: nothing
-- Locks:  none
-- Model:  PruneEpoch
CREATE OR REPLACE FUNCTION awa.prune_epoch() RETURNS int8
LANGUAGE sql STABLE AS $$
    SELECT sum(s.prunes)::int8 FROM awa.ring_slots s
$$;
