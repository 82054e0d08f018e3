-- terminal_jobs: every job that has ended: wide endings as they were written, compact successes joined to their bodies.
-- Reads:  done_entries, dlq_entries, queue_lanes, ready_entries and what claim_items reads
-- Writes: nothing
-- Locks:  none
-- Model:  TerminalJobs
CREATE VIEW awa.terminal_jobs AS
SELECT e.job_id, l.queue, l.priority, e.kind, e.args, e.state, e.attempt, e.max_attempts, e.run_lease,
       e.run_at, e.created_at, e.claimed_at, e.finalized_at, NULL::int8 AS runtime_id, e.payload
FROM awa.done_entries e
JOIN awa.queue_lanes l ON l.lane_id = e.lane_id
UNION ALL
SELECT e.job_id, l.queue, l.priority, e.kind, e.args, 'dead_lettered', e.attempt, e.max_attempts, e.run_lease,
       e.run_at, e.created_at, e.claimed_at, e.finalized_at, NULL::int8, e.payload
FROM awa.dlq_entries e
JOIN awa.queue_lanes l ON l.lane_id = e.lane_id
UNION ALL
SELECT i.job_id, l.queue, l.priority, r.kind, r.args, i.outcome, (r.attempt + 1)::int2, r.max_attempts, i.run_lease,
       r.run_at, r.created_at, i.claimed_at, i.closed_at, NULL::int8, r.payload
FROM awa.claim_items i
JOIN awa.ready_entries r ON r.job_id = i.job_id AND r.run_lease = i.run_lease - 1
JOIN awa.queue_lanes l ON l.lane_id = i.lane_id
WHERE i.outcome = 'completed';
