-- The buckets that are there, with their size on disk.
select
    b.number,
    pg_total_relation_size(('querator.log_' || b.number)::regclass),
    b.number < (select max(number) from querator.bucket)
from querator.bucket b
where not exists (select from querator.bucket_dropped d where d.number = b.number)
order by b.number
