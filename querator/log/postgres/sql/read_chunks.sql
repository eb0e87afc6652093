-- Pieces of snapshots; what is not there is not in the answer.
select k.segment, k.position, k.checksum, k.body
from unnest($2::bigint[], $3::bigint[]) as c(segment, position)
join querator.chunk k on k.partition = $1::bigint and k.segment = c.segment and k.position = c.position
