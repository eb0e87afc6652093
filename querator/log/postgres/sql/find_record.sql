-- Whose record stands at a position of a bucket.
select nonce, hash from {bucket} where partition = $1::bigint and position = $2::bigint
