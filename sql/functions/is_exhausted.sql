-- is_exhausted: whether a failed attempt was the job's last. The only text that decides it, whatever failed the attempt.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  none
-- Model:  IsExhausted
CREATE OR REPLACE FUNCTION awa.is_exhausted(p_attempt int2, p_max_attempts int2) RETURNS bool
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT p_attempt >= p_max_attempts
$$;
