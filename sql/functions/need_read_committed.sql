-- need_read_committed: refuses every other isolation level, for what looks under a lock or after a wait in a new statement, whose snapshot
-- has to be new. p_who is named in the error, AWA01.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  none
-- Model:  NeedReadCommitted
CREATE OR REPLACE FUNCTION awa.need_read_committed(p_who text) RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'awa.% needs READ COMMITTED, not %', p_who, upper(current_setting('transaction_isolation'))
            USING ERRCODE = 'AWA01', HINT = 'Call it on a connection of its own with the default isolation level.';
    END IF;
END
$$;
