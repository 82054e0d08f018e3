-- purge_dead_letters: removes up to p_limit jobs from the dead-letter queue that have lain there longer than dead_letter_retention, the
-- oldest first; how many.
-- Reads:  storage_settings
-- Writes: dlq_entries
-- Locks:  dlq_entries rows (SKIP LOCKED)
-- Model:  PurgeDeadLetters
CREATE OR REPLACE FUNCTION awa.purge_dead_letters(p_limit int4, p_now timestamptz DEFAULT clock_timestamp()) RETURNS int4
LANGUAGE sql VOLATILE
SET enable_seqscan = off AS $$
    WITH old AS MATERIALIZED (
        SELECT e.job_id FROM awa.dlq_entries e
        WHERE e.finalized_at < p_now - make_interval(secs => (SELECT s.dead_letter_retention FROM awa.storage_settings s))
        ORDER BY e.finalized_at, e.job_id LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM awa.dlq_entries e USING old WHERE e.job_id = old.job_id RETURNING 1
    )
    SELECT count(*)::int4 FROM gone
$$;
