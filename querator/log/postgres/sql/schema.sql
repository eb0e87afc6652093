-- Which migrations a database has, oldest first.
select number, name, checksum from querator.migration order by number
