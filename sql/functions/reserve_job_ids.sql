-- reserve_job_ids: p_n new job ids, ascending. One that is not used is a gap, which is harmless.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  none
-- Model:  ReserveJobIds
CREATE OR REPLACE FUNCTION awa.reserve_job_ids(p_n int4) RETURNS int8[]
LANGUAGE sql VOLATILE AS $$
    SELECT array_agg(nextval('awa.job_id_seq')) FROM generate_series(1, p_n)
$$;
