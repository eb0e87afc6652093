-- A snapshot whose chunks are all there. Keeps the one before it; removes older ones, and chunks that
-- neither of the two needs. Writes nothing when a chunk is missing, and then says how many are.
with missing as materialized (
    select count(*) as chunks
    from unnest($7::bigint[], $8::bigint[]) as c(segment, position)
    where not exists (
        select from querator.chunk k
        where k.partition = $1::bigint and k.segment = c.segment and k.position = c.position
    )
),
written as (
    insert into querator.snapshot (
        partition, position, version, hash, checksum, seal, chunk_segments, chunk_positions, head
    )
    select $1::bigint, $2::bigint, $3::integer, $4::bytea, $5::bytea, $6::bytea,
        $7::bigint[], $8::bigint[], $9::bytea
    from missing where chunks = 0
    on conflict (partition, position) do update set
        version = excluded.version, hash = excluded.hash, checksum = excluded.checksum, seal = excluded.seal,
        chunk_segments = excluded.chunk_segments, chunk_positions = excluded.chunk_positions,
        head = excluded.head
    returning position
),
previous as materialized (
    select s.position, s.chunk_segments, s.chunk_positions from querator.snapshot s
    where s.partition = $1::bigint and s.position < $2::bigint order by s.position desc limit 1
),
needed as materialized (
    select c.segment, c.position from unnest($7::bigint[], $8::bigint[]) as c(segment, position)
    union all
    select c.segment, c.position from previous, unnest(previous.chunk_segments, previous.chunk_positions)
        as c(segment, position)
),
older as (
    delete from querator.snapshot s using written
    where s.partition = $1::bigint
        and s.position < coalesce((select position from previous), $2::bigint)
),
unneeded as (
    delete from querator.chunk k using written
    where k.partition = $1::bigint
        and (k.segment, k.position) not in (select segment, position from needed)
)
select chunks from missing
