-- The bucket that takes records.
select max(number) from querator.bucket
