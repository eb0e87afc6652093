-- Pieces of a snapshot to come. One left over from a try that did not finish is replaced.
insert into querator.chunk (partition, segment, position, checksum, body)
select $1::bigint, c.segment, c.position, c.checksum, ($5::bytea[])[c.ordinal]
from unnest($2::bigint[], $3::bigint[], $4::bytea[]) with ordinality as c(segment, position, checksum, ordinal)
on conflict (partition, segment, position) do update set checksum = excluded.checksum, body = excluded.body
