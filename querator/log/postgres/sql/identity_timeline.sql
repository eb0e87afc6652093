-- For roles that may not read the system identifier.
'?:' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)
