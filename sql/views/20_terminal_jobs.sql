-- terminal_jobs: every job that has ended and is kept: wide endings as they were written, compact successes joined to their bodies, which
-- are kept as long as the claims that name them. In a statement that a prune overtakes rows may be missing: share_prune_lock.
-- Reads:  done_entries, dlq_entries, queue_lanes, ready_entries, receipt_results, receipt_completion_tombstones and what claim_items reads
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
       r.run_at, r.created_at, i.claimed_at, i.closed_at, NULL::int8,
       awa.with_result(r.payload, (SELECT x.result FROM awa.receipt_results x
                                   WHERE x.claim_slot = i.claim_slot AND x.claim_id = i.claim_id AND x.item = i.item))
FROM awa.claim_items i
JOIN awa.ready_entries r ON r.job_id = i.job_id AND r.run_lease = i.run_lease - 1
JOIN awa.queue_lanes l ON l.lane_id = i.lane_id
WHERE i.outcome = 'completed'
  AND NOT EXISTS (SELECT 1 FROM awa.receipt_completion_tombstones t
                  WHERE t.claim_slot = i.claim_slot AND t.claim_id = i.claim_id AND t.item = i.item);
