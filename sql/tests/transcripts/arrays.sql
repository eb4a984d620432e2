-- Arrays: slices, subscripts, assignment, functions

CREATE TABLE emp(id int primary key, name text not null, dept text, salary numeric(10,2), hired date, boss int, tags text[], info jsonb);
INSERT INTO emp VALUES (1,'ann','eng',100.50,'2020-01-01',null,'{a,b}','{"a":1,"b":[1,2,3],"c":{"d":"x"}}'),
(2,'bob','eng',200,'2020-06-15',1,'{b,c}','{"a":2,"b":[],"c":null}'),
(3,'cat','ops',150,'2021-03-03',1,'{}','{"a":"str"}'),
(4,'dan','ops',150,'2019-12-31',2,null,null),
(5,'eve','hr',null,'2022-02-28',3,'{a,NULL,c}','[1,2,{"x":true}]'),
(6,'fay',null,90.25,null,3,'{z}','"scalar"');
CREATE TABLE nums(n int primary key, k int, f float8);
INSERT INTO nums SELECT i, i%3, i*1.5 FROM generate_series(1,12) i;
CREATE TABLE arr(id int primary key, a int[], t text[]);
INSERT INTO arr VALUES (1,'{1,2,3}','{x,y}'),(2,'{}','{}'),(3,null,null),(4,'{5,null,7}','{"a b","c,d",null}');

select '{1,2,3}'::int[], array[1,2,3], array[]::int[], array['a',null,'c'], '{"a b",c,"d,e"}'::text[];
select (array[1,2,3,4])[2:3], (array[1,2,3,4])[:2], (array[1,2,3,4])[3:], (array[1,2,3])[:];
select (array[1,2,3])[0], (array[1,2,3])[5], (array[1,2,3])[null];
select array[1,2] || array[3], array[1] || 2, 0 || array[1], array[1,2] || null::int[];
select array[1,2] && array[2,3], array[1,2,3] @> array[1], array[1] <@ array[1,2], array[1,2] = array[1,2], array[1,2] < array[1,3];
select 1 = any(array[1,2]), 3 <> all(array[1,2]), 1 = any('{1,2}'), 'a' like any(array['a%','b']);
select array_append(array[1],2), array_prepend(0,array[1]), array_cat(array[1],array[2]), array_remove(array[1,2,1],1), array_replace(array[1,2],1,9);
select array_position(array['a','b'],'b'), array_positions(array[1,2,1],1), array_position(array[1,2,1],1,2);
select array_length(array[1,2],1), array_ndims(array[1]), array_dims(array[1,2]), array_lower(array[1],1), array_upper(array[1,2],1), cardinality(array[1,2,3]), array_length('{}'::int[],1), cardinality('{}'::int[]);
select array_to_string(array[1,null,3], ',', '*'), array_to_string(array['a','b'], ''), string_to_array('a,b,c', ','), string_to_array('abc', null), string_to_array('a,,b', ',', '');
select * from unnest(array[1,2], array['a','b','c']) as t(x,y);
select * from unnest(array['a','b']) with ordinality;
select * from unnest(array['a','b']) with ordinality as t(v, i);
select trim_array(array[1,2,3,4], 2);
select unnest(a) from arr where id in (1,4);
select id, x from arr, unnest(a) x order by 1,2;
select id, x, o from arr left join lateral unnest(t) with ordinality u(x,o) on true order by id, o;
update arr set a[2] = 99 where id = 1 returning a;
update arr set a[5] = 5 where id = 1 returning a;
update arr set a[1:2] = array[8,9] where id = 1 returning a;
update arr set a = a || 4 where id = 1 returning a;
update arr set a[1] = 1 where id = 3 returning a;
select id from arr where 2 = any(a) order by id;
select id from arr where t && array['x'];
select array(select n from nums order by n desc limit 3);
select array_agg(x) from unnest(array[3,1,2]) x;
select array['2020-01-01'::date], array[1.5,2], array[true], array['a'::varchar], array[now()] is not null, array[interval '1 day'], array['{}'::jsonb], array[gen_random_uuid()] is not null;
select '{a,b}'::text[] || 'c'::text, '{a,b}'::text[] || '{c}';
select array_to_json(array[1,2]), to_json(array['a','b']), to_jsonb(array[1,null]);
select '{1,2'::int[];
select '{1,a}'::int[];
select array[1,2]::text[], array['1','2']::int[], '{1,2}'::text[]::int[];
select generate_subscripts(array[5,6,7],1);
select * from generate_subscripts(array[5,6,7],1,true) s;
select array_upper(a, 1), a[array_upper(a,1)] from arr where id = 4;
select array[1,2,3] - 1;
select array[row(1,2),row(3,4)];
select array_agg(row(id,name)) from emp where id<3;
select array_sort(array[1]);
select id = any(array[1,2]) from emp order by id limit 3;
select * from emp where id = any('{1,2}'::int[]) order by id;
select * from emp where name = any(array['ann','bob']) order by id;
select id from emp where 'a' = any(tags) and not 'b' = any(tags);
select array_cat(null, array[1]), array_append(null::int[], 1);
select array[1,2] is distinct from array[1,2], array[1,null] = array[1,null];
select (string_to_array('a.b.c','.'))[2], (regexp_split_to_array('a1b2','\d'))[1];
select string_to_table('a,b',',');
select tags[1], tags[2:3] from emp order by id;
select array[1,2,3] @> array[]::int[], array[]::int[] <@ array[1];
select array_agg(n) @> array[3] from nums;
select min(x), max(x) from unnest('{3,1,2}'::int[]) x;
select array['a','b'] || 'c', 'c' || array['a','b'];
select array_shuffle(array[1]);
