-- Commits one record for each of several partitions, and says of each what became of it.
--
-- A record is inserted only behind its predecessor, which is in the open bucket or is the partition's last one
-- in the sealed buckets. What stands at its position already is shown, not overwritten; the insert waits for a
-- transaction that is about to put something there. See store.py for the meaning of `fate`.
with server as materialized (
    select
        {identity} as identity,
        (select max(number) from querator.bucket) as bucket,
        current_setting('synchronous_commit') <> 'off' or $15::boolean as durable,
        -- For this transaction only: a session setting would not survive a pooler.
        set_config('lock_timeout', $14::text, true) as waits
),
written as (
    insert into {bucket} (
        partition, position, nonce, written_at, item_min, item_max, version,
        previous_hash, hash, payload_checksum, inputs, events, payload
    )
    select
        r.partition, r.position, r.nonce, r.written_at, r.item_min, r.item_max, r.version,
        r.previous_hash, r.hash, r.payload_checksum,
        -- By index, not by unnest: a function scan would spool the large columns.
        ($11::bytea[])[r.ordinal], ($12::bytea[])[r.ordinal], ($13::bytea[])[r.ordinal]
    from server,
        unnest(
            $1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::integer[],
            $8::bytea[], $9::bytea[], $10::bytea[], $16::text[]
        ) with ordinality as r(
            partition, position, nonce, written_at, item_min, item_max, version,
            previous_hash, hash, payload_checksum, identity, ordinal
        )
    where server.durable
        and server.waits is not null
        and r.identity = server.identity
        and case
            when r.position = 1 then
                r.previous_hash = '\x0000000000000000000000000000000000000000000000000000000000000000'::bytea
                and (select h.position from querator.head h where h.partition = r.partition limit 1) is null
            else
                r.previous_hash = coalesce(
                    (select l.hash from {bucket} l where l.partition = r.partition and l.position = r.position - 1),
                    (
                        select case when h.position = r.position - 1 then h.hash end
                        from querator.head h where h.partition = r.partition order by h.bucket desc limit 1
                    )
                )
        end
    on conflict (partition, position) do nothing
    returning partition
),
fresh as materialized (
    -- An array, for a join of the two would be a nested loop, and in time quadratic: nothing says how many there are.
    select array_agg(partition) as partitions from written
)
select
    case
        when w.is_fresh then 1
        when not server.durable then 7
        when r.identity <> server.identity then 6
        when present.hash = r.hash and present.nonce = r.nonce then
            -- Found, not written: a commit of our own proves that all before it is as durable as configured
            -- (a synchronous replication wait may have been cut short for the one that wrote it).
            case when pg_logical_emit_message(true, 'querator', '') is not null then 2 end
        when present.hash is not null then 3
        when head.position >= r.position then 4
        when r.position = 1 and head.position is null
            and r.previous_hash = '\x0000000000000000000000000000000000000000000000000000000000000000'::bytea then 5
        when r.previous_hash = coalesce(
            (select l.hash from {bucket} l where l.partition = r.partition and l.position = r.position - 1),
            case when head.position = r.position - 1 then head.hash end
        ) then 5
        else 3
    end as fate,
    server.bucket
from server, fresh,
    unnest($1::bigint[], $2::bigint[], $3::bigint[], $8::bytea[], $9::bytea[], $16::text[])
    with ordinality as r(partition, position, nonce, previous_hash, hash, identity, ordinal)
    cross join lateral (select coalesce(r.partition = any(fresh.partitions), false) as is_fresh offset 0) w
    left join lateral (
        select h.position, h.hash, h.nonce from querator.head h
        where not w.is_fresh and h.partition = r.partition order by h.bucket desc limit 1
    ) head on true
    left join lateral (
        -- The same record twice when this bucket was sealed meanwhile.
        select l.hash, l.nonce from {bucket} l
        where not w.is_fresh and l.partition = r.partition and l.position = r.position
        union all
        select head.hash, head.nonce where not w.is_fresh and head.position = r.position
        limit 1
    ) present on true
order by r.ordinal
