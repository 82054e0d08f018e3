-- ring_tables: the tables of a ring, in the order in which their children are locked. The only text that says which they are.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  none
-- Model:  RingTables
CREATE OR REPLACE FUNCTION awa.ring_tables(p_ring text) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE p_ring
        WHEN 'queue' THEN ARRAY['ready_entries', 'ready_tombstones']
        WHEN 'claim' THEN ARRAY['lease_claim_batches', 'receipt_completion_batches', 'lease_claim_closures', 'receipt_results',
                                'receipt_completion_tombstones']
        WHEN 'lease' THEN ARRAY['leases']
        WHEN 'terminal' THEN ARRAY['done_entries', 'queue_terminal_count_deltas']
    END
$$;
