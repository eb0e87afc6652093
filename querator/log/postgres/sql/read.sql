-- Records of one partition in one bucket, from a position on, up to a number of records and of bytes; with $6
-- at least one if there is one. Lengths of stored-out columns are read without the columns.
select
    partition, position, nonce, written_at, item_min, item_max, version,
    previous_hash, hash, payload_checksum, inputs, events,
    case when $5::boolean then payload end
from (
    select
        l.*,
        sum(
            octet_length(l.events) + octet_length(l.inputs)
            + case when $5::boolean then octet_length(l.payload) else 0 end
        ) over (order by l.position) as running
    from (
        select * from {bucket}
        where partition = $1::bigint and position >= $2::bigint
        order by position limit $3::bigint
    ) l
) counted
where running <= $4::bigint or ($6::boolean and position = $2::bigint)
order by position
