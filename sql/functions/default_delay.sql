-- default_delay: seconds until the next try after the given attempt where no task's policy is at hand: 1, 2, 4 ... an hour; 0
-- for attempt 0, which is what a job's first rescue asks for.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  none
-- Model:  DefaultDelay
CREATE OR REPLACE FUNCTION awa.default_delay(p_attempt int4) RETURNS float8
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN p_attempt <= 0 THEN 0 ELSE least(3600, 2.0 ^ least(p_attempt - 1, 30)) END
$$;
