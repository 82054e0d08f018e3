-- compare_terminal_counts: by queue and state, what the counters say of the endings that are kept and what there is, in one snapshot: the
-- jobs of claims that are counted (ring_slots says which), of done_entries and of the dead-letter queue.
-- Reads:  queue_terminal_live_counts, queue_terminal_count_deltas, ring_slots, lease_claim_batches, receipt_completion_batches,
--         lease_claim_closures, done_entries, dlq_entries, queue_lanes
-- Writes: nothing
-- Locks:  none
-- Model:  CompareTerminalCounts
CREATE OR REPLACE FUNCTION awa.compare_terminal_counts() RETURNS TABLE (
    ring text, slot int2, queue text, state text, counted int8, actual int8
)
LANGUAGE sql STABLE
SET jit = off AS $$
    WITH counted AS (
        SELECT c.ring, c.slot, c.queue, c.state, c.n FROM awa.queue_terminal_live_counts c
        UNION ALL
        SELECT CASE d.state WHEN 'dead_lettered' THEN 'dlq' ELSE 'terminal' END,
               CASE d.state WHEN 'dead_lettered' THEN 0 ELSE d.terminal_slot END, d.queue, d.state, d.delta
        FROM awa.queue_terminal_count_deltas d
    ), uncounted AS MATERIALIZED (
        SELECT s.slot, u.claim_id FROM awa.ring_slots s CROSS JOIN unnest(s.uncounted) AS u (claim_id) WHERE s.ring = 'claim'
    ), claims AS (
        SELECT u.claim_slot, u.claim_id, max(u.lane_id) AS lane_id, sum(u.completed) AS completed
        FROM (SELECT b.claim_slot, b.claim_id, b.lane_id, 0 AS completed FROM awa.lease_claim_batches b
              UNION ALL
              SELECT c.claim_slot, c.claim_id, NULL, c.n FROM awa.receipt_completion_batches c
              UNION ALL
              SELECT x.claim_slot, x.claim_id, NULL, 1 FROM awa.lease_claim_closures x WHERE x.outcome = 'completed') u
        GROUP BY u.claim_slot, u.claim_id
    ), actual AS (
        SELECT 'claim' AS ring, c.claim_slot AS slot, l.queue, 'completed' AS state, c.completed AS n
        FROM claims c
        JOIN awa.ring_slots s ON s.ring = 'claim' AND s.slot = c.claim_slot
        JOIN awa.queue_lanes l ON l.lane_id = c.lane_id
        WHERE c.completed > 0 AND c.claim_id <= s.counted_to
          AND NOT EXISTS (SELECT 1 FROM uncounted u WHERE u.slot = c.claim_slot AND u.claim_id = c.claim_id)
        UNION ALL
        SELECT 'terminal', e.terminal_slot, l.queue, e.state, 1
        FROM awa.done_entries e JOIN awa.queue_lanes l ON l.lane_id = e.lane_id
        UNION ALL
        SELECT 'dlq', 0, l.queue, 'dead_lettered', 1
        FROM awa.dlq_entries e JOIN awa.queue_lanes l ON l.lane_id = e.lane_id
    )
    SELECT u.ring, u.slot, u.queue, u.state, sum(u.counted)::int8, sum(u.actual)::int8
    FROM (SELECT c.ring, c.slot, c.queue, c.state, c.n AS counted, 0 AS actual FROM counted c
          UNION ALL
          SELECT a.ring, a.slot, a.queue, a.state, 0, a.n FROM actual a) u
    GROUP BY u.ring, u.slot, u.queue, u.state
    ORDER BY u.ring, u.slot, u.queue, u.state
$$;
