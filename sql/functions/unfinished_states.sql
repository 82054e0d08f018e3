-- unfinished_states: the states of jobs that have not ended.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  none
-- Model:  UnfinishedStates
CREATE OR REPLACE FUNCTION awa.unfinished_states() RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT ARRAY['available', 'scheduled', 'retryable', 'running', 'waiting']
$$;
