-- Joins the line of nodes, or stays in it; then shows the line: live nodes, longest standing first. A name that
-- another boot holds is left to it until its time is over.
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
)
select name, nonce, address from (
    select name, nonce, address, joined_at from me
    union all
    select n.name, n.nonce, n.address, n.joined_at from querator.node n
    where n.lease_until > clock_timestamp() and not exists (select from me where me.name = n.name)
) line
order by joined_at, name
