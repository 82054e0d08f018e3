-- count_jobs: how many jobs of a queue are in each state, in one snapshot; of all queues when p_queue is NULL. See queue_counts.
-- What has ended and was pruned counts as well: completed, failed and cancelled are totals since the queue's first job.
-- Exact: everything is counted where it lies; costs the history that is kept. Fast: what was counted before is added up, and only claims
-- that were not are looked at; of the jobs that wait at most p_available_limit are counted.
-- Reads:  queue_lanes, queue_controls, queue_claim_heads, ready_entries, ready_tombstones, leases, deferred_jobs, done_entries,
--         dlq_entries, queue_terminal_live_counts, queue_terminal_count_deltas, queue_terminal_rollups and what count_claims and
--         count_buried read
-- Writes: nothing
-- Locks:  none
-- Model:  CountJobs
CREATE OR REPLACE FUNCTION awa.count_jobs(p_queue text, p_exact bool, p_available_limit int4)
RETURNS TABLE (
    queue text, paused bool, available int8, running int8, scheduled int8, retryable int8, waiting int8, completed int8, failed int8,
    cancelled int8, dead_lettered int8)
LANGUAGE sql STABLE
-- One plan for all calls: to make it takes longer than to carry it out.
SET jit = off SET plan_cache_mode = force_generic_plan AS $$
    WITH lanes AS MATERIALIZED (
        SELECT l.lane_id, l.queue, l.has_tombstones FROM awa.queue_lanes l WHERE p_queue IS NULL OR l.queue = p_queue
    ), claimed AS (
        SELECT l.queue, sum(c.open) AS open, sum(c.completed) AS completed
        FROM awa.count_claims(p_exact) c JOIN lanes l ON l.lane_id = c.lane_id GROUP BY l.queue
    ), buried AS (
        SELECT l.queue, sum(t.n) AS n FROM awa.count_buried() t JOIN lanes l ON l.lane_id = t.lane_id GROUP BY l.queue
    ), deferred AS (
        SELECT l.queue, count(*) FILTER (WHERE d.state = 'scheduled') AS scheduled,
               count(*) FILTER (WHERE d.state = 'retryable') AS retryable
        FROM awa.deferred_jobs d JOIN lanes l ON l.lane_id = d.lane_id GROUP BY l.queue
    ), leased AS (
        SELECT l.queue, count(*) FILTER (WHERE s.state = 'running') AS running, count(*) FILTER (WHERE s.state = 'waiting') AS waiting
        FROM awa.leases s JOIN lanes l ON l.lane_id = s.lane_id GROUP BY l.queue
    ), ended AS (
        SELECT l.queue, e.state, count(*) AS n
        FROM awa.done_entries e JOIN lanes l ON l.lane_id = e.lane_id WHERE p_exact GROUP BY l.queue, e.state
        UNION ALL
        SELECT l.queue, 'dead_lettered', count(*)
        FROM awa.dlq_entries e JOIN lanes l ON l.lane_id = e.lane_id WHERE p_exact GROUP BY l.queue
        UNION ALL
        SELECT c.queue, c.state, c.n FROM awa.queue_terminal_live_counts c
        WHERE NOT p_exact AND (p_queue IS NULL OR c.queue = p_queue)
        UNION ALL
        SELECT d.queue, d.state, d.delta FROM awa.queue_terminal_count_deltas d
        WHERE NOT p_exact AND (p_queue IS NULL OR d.queue = p_queue)
        UNION ALL
        SELECT u.queue, u.state, u.n FROM awa.queue_terminal_rollups u WHERE p_queue IS NULL OR u.queue = p_queue
    ), endings AS (
        SELECT e.queue, coalesce(sum(e.n) FILTER (WHERE e.state = 'completed'), 0) AS completed,
               coalesce(sum(e.n) FILTER (WHERE e.state = 'failed'), 0) AS failed,
               coalesce(sum(e.n) FILTER (WHERE e.state = 'cancelled'), 0) AS cancelled,
               coalesce(sum(e.n) FILTER (WHERE e.state = 'dead_lettered'), 0) AS dead_lettered
        FROM ended e GROUP BY e.queue
    ), waiting AS (
        SELECT l.queue, sum((awa.lane_backlog(l.lane_id, p_available_limit)).n
                            - CASE WHEN l.has_tombstones THEN awa.lane_tombstones(l.lane_id) ELSE 0 END) AS n
        FROM lanes l GROUP BY l.queue
    )
    SELECT w.queue, coalesce(q.paused_at IS NOT NULL, false), greatest(w.n, 0)::int8,
           (coalesce(c.open, 0) + coalesce(s.running, 0))::int8,
           coalesce(d.scheduled, 0), coalesce(d.retryable, 0), coalesce(s.waiting, 0),
           (coalesce(c.completed, 0) + coalesce(e.completed, 0) - coalesce(t.n, 0))::int8,
           coalesce(e.failed, 0)::int8, coalesce(e.cancelled, 0)::int8, coalesce(e.dead_lettered, 0)::int8
    FROM waiting w
    LEFT JOIN awa.queue_controls q ON q.queue = w.queue
    LEFT JOIN claimed c ON c.queue = w.queue
    LEFT JOIN buried t ON t.queue = w.queue
    LEFT JOIN leased s ON s.queue = w.queue
    LEFT JOIN deferred d ON d.queue = w.queue
    LEFT JOIN endings e ON e.queue = w.queue
    ORDER BY w.queue
$$;
