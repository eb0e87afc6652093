-- The bucket a position of a partition is in (or would be next), whether that bucket is gone, whether it is open.
select
    coalesce(h.bucket, (select max(number) from querator.bucket)),
    exists (select from querator.bucket_dropped d where d.number = h.bucket),
    h.bucket is null
from (select) one
left join lateral (
    select bucket from querator.head
    where partition = $1::bigint and position >= $2::bigint order by bucket limit 1
) h on true
