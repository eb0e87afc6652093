-- Leaves the line of nodes, and what it owned, so that the next one need not wait.
with left_behind as (
    delete from querator.owner where name = $1::text and nonce = $2::bigint
)
delete from querator.node where name = $1::text and nonce = $2::bigint
