-- refuse_job: ends the statement because of a job that cannot be enqueued (SQLSTATE AWA02): the message is the path of the bad
-- value and what is wrong with it, and the error's column is that path alone. awa.errors makes InvalidJob of it.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  none
-- Model:  RefuseJob
CREATE OR REPLACE FUNCTION awa.refuse_job(p_field text, p_reason text) RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'AWA02', MESSAGE = format('%s: %s', p_field, p_reason), COLUMN = p_field;
END
$$;
