-- sweep_unique_claims: removes keys that belong to nobody any more, among the p_limit keys after p_after; returns the last one
-- looked at, or NULL at the end. Tidiness only: such a key goes to whoever wants it. One of a job that may be retried stays while its
-- period lasts, or until the job goes: a retry takes the key again with the scope it had.
-- Reads:  job_unique_claims and what get_job reads
-- Writes: job_unique_claims
-- Locks:  job_unique_claims rows (SKIP LOCKED)
-- Model:  SweepUniqueClaims
CREATE OR REPLACE FUNCTION awa.sweep_unique_claims(p_after bytea, p_limit int4, p_now timestamptz DEFAULT clock_timestamp())
RETURNS bytea
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_keys bytea[];
BEGIN
    v_keys := ARRAY(
        SELECT u.unique_key FROM awa.job_unique_claims u
        WHERE u.unique_key > coalesce(p_after, '') ORDER BY u.unique_key LIMIT p_limit FOR UPDATE SKIP LOCKED
    );
    -- A new statement after the locks: nobody can give these keys to another job now.
    DELETE FROM awa.job_unique_claims u
    WHERE u.unique_key = ANY (v_keys) AND NOT awa.holds_unique_key(u.job_id, u.expires_at, u.states, p_now)
      AND NOT (u.expires_at > p_now AND EXISTS (SELECT 1 FROM awa.get_job(u.job_id) j
                                                WHERE j.state IN ('failed', 'cancelled', 'dead_lettered')));
    RETURN CASE WHEN cardinality(v_keys) = p_limit THEN v_keys[p_limit] END;
END
$$;
