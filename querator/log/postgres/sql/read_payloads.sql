-- The payload blocks of single records of one partition in one bucket.
select position, payload from {bucket} where partition = $1::bigint and position = any($2::bigint[])
