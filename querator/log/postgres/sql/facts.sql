-- What is asked of a server before it is trusted with a log. An unprivileged role may run it.
select
    current_setting('server_version_num')::integer,
    pg_is_in_recovery(),
    current_setting('fsync') = 'on',
    current_setting('full_page_writes') = 'on',
    current_setting('synchronous_commit'),
    (extract(epoch from clock_timestamp()) * 1000000)::bigint,
    pg_backend_pid(),
    to_regclass('querator.migration') is not null,
    has_function_privilege('pg_control_system()', 'execute'),
    current_user::text,
    current_setting('is_superuser') = 'on'
