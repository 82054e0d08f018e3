-- take_unique_keys: gives many keys to jobs that are about to be written, in one statement where they are free; returns a row for
-- every job whose key belongs to another: its place in p_keys and the holder, which may be an earlier job of the same call.
-- p_claims: objects with period (seconds or null) and states; p_claim_of says, from 1, which of them is a job's.
-- Keys are taken in their order, so two calls cannot wait for each other; transactions with several calls can.
-- Reads:  job_unique_claims and what take_unique_key reads
-- Writes: job_unique_claims
-- Locks:  job_unique_claims rows, sorted
-- Model:  TakeUniqueKeys
CREATE OR REPLACE FUNCTION awa.take_unique_keys(
    p_keys bytea[], p_job_ids int8[], p_claim_of int2[], p_claims json, p_now timestamptz DEFAULT clock_timestamp()
) RETURNS TABLE (place int4, holder int8)
LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    v_job record;
    v_holder int8;
BEGIN
    FOR v_job IN
        WITH claims AS MATERIALIZED (
            SELECT o.ord, coalesce(p_now + make_interval(secs => c.period), 'infinity') AS expires_at, c.states
            FROM json_array_elements(p_claims) WITH ORDINALITY AS o (value, ord)
            CROSS JOIN LATERAL json_to_record(o.value) AS c (period float8, states text[])
        ), wanted AS MATERIALIZED (
            SELECT u.place::int4, u.unique_key, u.job_id, c.expires_at, c.states
            FROM unnest(p_keys, p_job_ids, p_claim_of) WITH ORDINALITY AS u (unique_key, job_id, claim_of, place)
            JOIN claims c ON c.ord = u.claim_of
        ), taken AS (
            INSERT INTO awa.job_unique_claims (unique_key, job_id, expires_at, states)
            SELECT w.unique_key, w.job_id, w.expires_at, w.states FROM wanted w ORDER BY w.unique_key, w.place
            ON CONFLICT DO NOTHING
            RETURNING job_id
        )
        SELECT w.* FROM wanted w WHERE w.job_id NOT IN (SELECT t.job_id FROM taken t) ORDER BY w.unique_key, w.place
    LOOP
        v_holder := awa.take_unique_key(v_job.unique_key, v_job.job_id, v_job.expires_at, v_job.states, false, p_job_ids, p_now);
        IF v_holder IS NOT NULL THEN
            RETURN QUERY SELECT v_job.place, v_holder;
        END IF;
    END LOOP;
END
$$;
