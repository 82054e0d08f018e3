-- with_result: a job's payload with the result of its handler, when it has stored one.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  none
-- Model:  WithResult
CREATE OR REPLACE FUNCTION awa.with_result(p_payload jsonb, p_result jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN p_result IS NULL THEN p_payload ELSE coalesce(p_payload, '{}') || jsonb_build_object('result', p_result) END
$$;
