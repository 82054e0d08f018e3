-- jobs_delete: what DELETE FROM awa.jobs does with each row: delete_job. Raises 55P03 when something holds a job for longer than a second;
-- nothing of the statement is done then.
-- Reads:  what delete_job reads
-- Writes: what delete_job writes
-- Locks:  those of delete_job
-- Model:  JobsDelete
CREATE OR REPLACE FUNCTION awa.jobs_delete() RETURNS trigger
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    v_verdict text;
BEGIN
    FOR v_try IN 1..100 LOOP
        v_verdict := awa.delete_job(OLD.job_id);
        IF v_verdict <> 'busy' THEN
            RETURN CASE v_verdict WHEN 'deleted' THEN OLD END;
        END IF;
        PERFORM pg_sleep(0.01);
    END LOOP;
    RAISE EXCEPTION 'awa.jobs: job % is held by something else', OLD.job_id USING ERRCODE = 'lock_not_available';
END
$$;
