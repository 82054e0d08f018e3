-- add_live_counts: adds the deltas of a terminal slot to the live counts. The caller holds that slot's deltas and truncates them.
-- Reads:  queue_terminal_count_deltas
-- Writes: queue_terminal_live_counts
-- Locks:  counter rows, sorted
-- Model:  AddLiveCounts
CREATE OR REPLACE FUNCTION awa.add_live_counts(p_slot int2) RETURNS void
LANGUAGE sql VOLATILE AS $$
    INSERT INTO awa.queue_terminal_live_counts AS c (ring, slot, queue, state, n)
    SELECT CASE d.state WHEN 'dead_lettered' THEN 'dlq' ELSE 'terminal' END, CASE d.state WHEN 'dead_lettered' THEN 0 ELSE p_slot END,
           d.queue, d.state, sum(d.delta)
    FROM awa.queue_terminal_count_deltas d
    WHERE d.terminal_slot = p_slot
    GROUP BY d.queue, d.state
    HAVING sum(d.delta) <> 0
    ORDER BY 1, 2, 3, 4
    ON CONFLICT (ring, slot, queue, state) DO UPDATE SET n = c.n + excluded.n
$$;
