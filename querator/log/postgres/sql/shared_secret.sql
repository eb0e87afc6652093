-- A secret that all nodes share: the one that is there, else the one that is offered. No row when another node
-- has just put one: ask again.
with mine as (
    insert into querator.secret (name, value) values ($1::text, $2::bytea)
    on conflict (name) do nothing
    returning value
)
select value from mine
union all
select s.value from querator.secret s where s.name = $1::text
limit 1
