-- append_error: a job's payload with one more attempt's error, the newest 10 kept.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  none
-- Model:  AppendError
CREATE OR REPLACE FUNCTION awa.append_error(p_payload jsonb, p_error jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN p_error IS NULL THEN p_payload ELSE
        jsonb_set(coalesce(p_payload, '{}'), '{errors}',
            (CASE WHEN jsonb_array_length(coalesce(p_payload -> 'errors', '[]')) >= 10
                  THEN (p_payload -> 'errors') - 0
                  ELSE coalesce(p_payload -> 'errors', '[]') END) || p_error)
    END
$$;
