-- Drops the oldest bucket, whole.
select querator.drop_bucket($1::integer)
