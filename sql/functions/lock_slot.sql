-- lock_slot: takes ACCESS EXCLUSIVE on a slot's children, in their order, within p_wait seconds in all, or raises 55P03. A request
-- that waits has everybody else wait behind it: p_wait is how long that may last.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  ring children (ACCESS EXCLUSIVE, bounded wait)
-- Model:  LockSlot
CREATE OR REPLACE FUNCTION awa.lock_slot(p_tables text[], p_slot int2, p_wait float8) RETURNS void
LANGUAGE plpgsql VOLATILE
SET lock_timeout = '10ms' AS $$
DECLARE
    v_until timestamptz := clock_timestamp() + make_interval(secs => p_wait);
    v_left int4;
    v_table text;
BEGIN
    FOREACH v_table IN ARRAY p_tables LOOP
        v_left := ceil(extract(epoch FROM v_until - clock_timestamp()) * 1000);
        PERFORM set_config('lock_timeout', greatest(v_left, 1)::text, true);
        EXECUTE format('LOCK TABLE awa.%I IN ACCESS EXCLUSIVE MODE', v_table || '_' || p_slot);
    END LOOP;
END
$$;
