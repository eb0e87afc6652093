-- Which server this is, as computed now: another system, or another timeline of it, is another server.
(select system_identifier::text from pg_control_system())
    || ':' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)
