-- Leaves the line of nodes, so that the next one need not wait.
delete from querator.node where name = $1::text and nonce = $2::bigint
