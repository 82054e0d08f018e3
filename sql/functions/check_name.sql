-- check_name: refuses what cannot be a name: nothing, too many characters, control or invisible ones. As awa.plan.check_name does,
-- but for code points that Unicode has not assigned yet, which Python refuses.
-- Reads:  nothing
-- Writes: nothing
-- Locks:  none
-- Model:  CheckName
CREATE OR REPLACE FUNCTION awa.check_name(p_value text, p_field text, p_limit int4) RETURNS void
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF p_value IS NULL THEN
        PERFORM awa.refuse_job(p_field, 'must be text, not NULL');
    ELSIF p_value = '' THEN
        PERFORM awa.refuse_job(p_field, 'must not be empty');
    ELSIF char_length(p_value) > p_limit THEN
        PERFORM awa.refuse_job(p_field, format('%s characters, the limit is %s', char_length(p_value), p_limit));
    ELSIF p_value ~ '[\x01-\x1F\x7F]' OR (octet_length(p_value) <> char_length(p_value) AND p_value ~
          '[\u0080-\u00A0\u00AD\u0600-\u0605\u061C\u06DD\u070F\u0890-\u0891\u08E2\u1680\u180E\u2000-\u200F\u2028-\u202F\u205F-\u2064\u2066-\u206F\u3000\uE000-\uF8FF\uFEFF\uFFF9-\uFFFB\U000110BD\U000110CD\U00013430-\U00013438\U0001BCA0-\U0001BCA3\U0001D173-\U0001D17A\U000E0001\U000E0020-\U000E007F\U000F0000-\U000FFFFD\U00100000-\U0010FFFD]')
    THEN
        PERFORM awa.refuse_job(p_field, 'contains control or unprintable characters');
    END IF;
END
$$;
