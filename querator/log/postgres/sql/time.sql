-- The time that all nodes go by, in microseconds.
select (extract(epoch from clock_timestamp()) * 1000000)::bigint
