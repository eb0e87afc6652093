-- A partition's last record, the open bucket, and the server it was read from, in one snapshot.
select {identity}, (select max(number) from querator.bucket), last.position, last.hash, last.nonce
from (select) one
left join lateral (
    select position, hash, nonce from (
        (
            select l.position, l.hash, l.nonce from querator.log l
            where l.bucket = (select max(number) from querator.bucket) and l.partition = $1::bigint
            order by l.position desc limit 1
        )
        union all
        (
            select h.position, h.hash, h.nonce from querator.head h
            where h.partition = $1::bigint order by h.bucket desc limit 1
        )
    ) known
    order by position desc limit 1
) last on true
