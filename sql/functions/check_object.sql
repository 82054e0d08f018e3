-- check_object: refuses what cannot be a job's arguments or metadata, or would not be kept exactly: anything but an object, more than
-- 1 MiB, more than 64 levels, NUL, lone surrogates, numbers that no reader could take. As awa.arguments.encode_object does. Only
-- texts that look odd are walked.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  none
-- Model:  CheckObject
CREATE OR REPLACE FUNCTION awa.check_object(p_value json, p_field text) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_limit  CONSTANT int4 := 1048576;
    v_levels CONSTANT int4 := 64;
    v_text   CONSTANT text := p_value::text;
    v_bad    record;
BEGIN
    IF json_typeof(p_value) <> 'object' THEN
        PERFORM awa.refuse_job(p_field, format('must be a JSON object, not %s', json_typeof(p_value)));
    ELSIF octet_length(v_text) > v_limit THEN
        PERFORM awa.refuse_job(p_field, format('%s bytes of JSON, the limit is %s', octet_length(v_text), v_limit));
    ELSIF v_text !~* E'\\\\u0000|\\\\ud[89a-f]|[0-9]{19}|[0-9.]e[+-]?[0-9]{3}'
          AND octet_length(v_text) - octet_length(translate(v_text, '{[', '')) < v_levels THEN
        RETURN;
    END IF;
    BEGIN
        PERFORM p_value::jsonb;
        WITH RECURSIVE node (path, value, depth) AS (
            SELECT p_field, p_value, 1
            UNION ALL
            SELECT c.path, c.value, n.depth + 1
            FROM node n
            CROSS JOIN LATERAL (
                SELECT format('%s.%s', n.path, e.key) AS path, e.value
                FROM json_each(CASE json_typeof(n.value) WHEN 'object' THEN n.value ELSE '{}' END) e
                UNION ALL
                SELECT format('%s[%s]', n.path, a.ord - 1), a.value
                FROM json_array_elements(CASE json_typeof(n.value) WHEN 'array' THEN n.value ELSE '[]' END)
                     WITH ORDINALITY AS a (value, ord)
            ) c
            WHERE n.depth <= v_levels
        )
        SELECT n.path, n.depth > v_levels AS is_deep INTO v_bad
        FROM node n
        WHERE n.depth > v_levels
           OR CASE WHEN json_typeof(n.value) <> 'number' THEN false
                   WHEN n.value::text ~ '[.eE]' THEN n.value::text::float8 IS NULL  -- an error where it is too large
                   ELSE n.value::text::numeric NOT BETWEEN -9223372036854775808 AND 18446744073709551615 END
        LIMIT 1;
    EXCEPTION
        WHEN untranslatable_character OR invalid_text_representation THEN
            PERFORM awa.refuse_job(p_field, E'contains NUL (\\u0000) or a lone surrogate, which PostgreSQL text cannot hold');
        WHEN numeric_value_out_of_range THEN
            PERFORM awa.refuse_job(p_field, 'contains a number beyond double precision: send it as text');
    END;
    IF v_bad.is_deep THEN
        PERFORM awa.refuse_job(v_bad.path, format('nested more than %s levels deep', v_levels));
    ELSIF v_bad.path IS NOT NULL THEN
        PERFORM awa.refuse_job(v_bad.path, 'an integer beyond 64 bits: send it as text');
    END IF;
END
$$;
