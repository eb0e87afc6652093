-- Every partition that ever had a record.
with recursive present as (
    (
        select l.partition from querator.log l
        where l.bucket = (select max(number) from querator.bucket) order by l.partition limit 1
    )
    union all
    select (
        select l.partition from querator.log l
        where l.bucket = (select max(number) from querator.bucket) and l.partition > present.partition
        order by l.partition limit 1
    )
    from present where present.partition is not null
)
select partition from present where partition is not null
union
select partition from querator.head
order by partition
