-- Joins the line of nodes, or stays in it, and is the owner when it may be; then shows who is, and the line: live
-- nodes, longest standing first. A name that another boot holds is left to it until its time is over.
with me as (
    insert into querator.node (name, nonce, address, joined_at, lease_until)
    values (
        $1::text, $2::bigint, $3::text, clock_timestamp(),
        clock_timestamp() + $4::bigint * interval '1 microsecond'
    )
    on conflict (name) do update set
        nonce = excluded.nonce,
        address = excluded.address,
        joined_at = case
            when node.nonce = excluded.nonce and node.lease_until > clock_timestamp() then node.joined_at
            else excluded.joined_at
        end,
        lease_until = excluded.lease_until
    where node.nonce = excluded.nonce or node.lease_until <= clock_timestamp()
    returning name, nonce, address, joined_at
),
line as (
    select name, nonce, address, joined_at from me
    union all
    select n.name, n.nonce, n.address, n.joined_at from querator.node n
    where n.lease_until > clock_timestamp() and not exists (select from me where me.name = n.name)
),
-- Unlike the line, this one row cannot be had by two: where another node's statement has it and has not committed,
-- this one waits, and looks at what is there then.
mine as (
    insert into querator.owner (name, nonce, address, lease_until)
    select me.name, me.nonce, me.address, clock_timestamp() + $4::bigint * interval '1 microsecond'
    from me
    where exists (select from querator.owner o where (o.name, o.nonce) = (me.name, me.nonce))
        or not exists (select from line l where (l.joined_at, l.name) < (me.joined_at, me.name))
    on conflict (is_owner) do update set
        name = excluded.name,
        nonce = excluded.nonce,
        address = excluded.address,
        lease_until = excluded.lease_until
    where (owner.name, owner.nonce) = (excluded.name, excluded.nonce) or owner.lease_until <= clock_timestamp()
    returning name, nonce, address
),
owning as (
    select name, nonce, address from mine
    union all
    select o.name, o.nonce, o.address from querator.owner o
    where o.lease_until > clock_timestamp() and not exists (select from mine)
        and (o.name, o.nonce) <> ($1::text, $2::bigint)
)
select name, nonce, address, owns from (
    select name, nonce, address, true as owns, '-infinity'::timestamptz as joined_at from owning
    union all
    select name, nonce, address, false, joined_at from line
    where not exists (select from owning where owning.name = line.name)
) found
order by joined_at, name
