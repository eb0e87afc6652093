-- Seals the open bucket, if it still is, and opens the next; the number of the open one.
select querator.open_bucket($1::integer)
