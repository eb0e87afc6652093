-- A partition's snapshots, newest first.
select position, version, hash, checksum, seal, chunk_segments, chunk_positions, head
from querator.snapshot where partition = $1::bigint order by position desc
