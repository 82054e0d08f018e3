-- register_runtime: makes a process known before its first claim; claims of runtimes that are not known are refused.
-- Reads:  nothing
-- Writes: runtime_instances
-- Locks:  none
-- Model:  RegisterRuntime
CREATE OR REPLACE FUNCTION awa.register_runtime(
    p_runtime_id int8, p_supervisor_id int8, p_pid int4, p_hostname text, p_release text, p_queues jsonb
) RETURNS void
LANGUAGE sql VOLATILE AS $$
    INSERT INTO awa.runtime_instances (runtime_id, supervisor_id, pid, hostname, release, queues)
    VALUES (p_runtime_id, p_supervisor_id, p_pid, p_hostname, p_release, p_queues)
$$;
