-- jobs: every job exactly once, in exactly one state. DELETE works for every state: see jobs_delete. In a statement that a prune
-- overtakes, rows may be missing or shown where they were: share_prune_lock.
-- Reads:  deferred_jobs, leases, ready_entries, ready_tombstones, queue_lanes, queue_claim_heads and what terminal_jobs reads
-- Writes: nothing
-- Locks:  none
-- Model:  Jobs
CREATE VIEW awa.jobs AS
SELECT t.job_id, t.queue, t.priority, t.kind, t.args, t.state, t.attempt, t.max_attempts, t.run_lease,
       t.run_at, t.created_at, t.claimed_at, t.finalized_at, t.runtime_id, t.payload
FROM awa.terminal_jobs t
UNION ALL
SELECT d.job_id, l.queue, l.priority, d.kind, d.args, d.state, d.attempt, d.max_attempts, d.run_lease,
       d.run_at, d.created_at, NULL, NULL, NULL, d.payload
FROM awa.deferred_jobs d
JOIN awa.queue_lanes l ON l.lane_id = d.lane_id
UNION ALL
SELECT r.job_id, l.queue, l.priority, r.kind, r.args, 'available', r.attempt, r.max_attempts, r.run_lease,
       r.run_at, r.created_at, NULL, NULL, NULL, r.payload
FROM awa.queue_lanes l
CROSS JOIN LATERAL awa.lane_cursor(l.lane_id) c
JOIN awa.ready_entries r ON r.lane_id = l.lane_id
WHERE NOT awa.is_consumed(r.enq_xid, r.lane_seq, c.s_prev, c.s_cur, c.pos_xid, c.pos_seq)
  AND NOT (l.has_tombstones AND EXISTS (
      SELECT 1 FROM awa.ready_tombstones t
      WHERE t.lane_id = r.lane_id AND t.enq_xid = r.enq_xid AND t.lane_seq = r.lane_seq))
UNION ALL
SELECT e.job_id, l.queue, l.priority, e.kind, e.args, e.state, (e.attempt + 1)::int2, e.max_attempts, e.run_lease,
       e.run_at, e.created_at, e.claimed_at, NULL, CASE WHEN e.state = 'running' THEN e.runtime_id END, e.payload
FROM awa.leases e
JOIN awa.queue_lanes l ON l.lane_id = e.lane_id
UNION ALL
SELECT i.job_id, l.queue, l.priority, r.kind, r.args, 'running', (r.attempt + 1)::int2, r.max_attempts, i.run_lease,
       r.run_at, r.created_at, i.claimed_at, NULL, i.runtime_id, r.payload
FROM awa.claim_items i
JOIN awa.ready_entries r ON r.job_id = i.job_id AND r.run_lease = i.run_lease - 1
JOIN awa.queue_lanes l ON l.lane_id = i.lane_id
WHERE i.outcome IS NULL;

CREATE TRIGGER jobs_delete INSTEAD OF DELETE ON awa.jobs FOR EACH ROW EXECUTE FUNCTION awa.jobs_delete();
