-- JSON: operators, functions, paths, rows as objects

CREATE TABLE emp(id int primary key, name text not null, dept text, salary numeric(10,2), hired date, boss int, tags text[], info jsonb);
INSERT INTO emp VALUES (1,'ann','eng',100.50,'2020-01-01',null,'{a,b}','{"a":1,"b":[1,2,3],"c":{"d":"x"}}'),
(2,'bob','eng',200,'2020-06-15',1,'{b,c}','{"a":2,"b":[],"c":null}'),
(3,'cat','ops',150,'2021-03-03',1,'{}','{"a":"str"}'),
(4,'dan','ops',150,'2019-12-31',2,null,null),
(5,'eve','hr',null,'2022-02-28',3,'{a,NULL,c}','[1,2,{"x":true}]'),
(6,'fay',null,90.25,null,3,'{z}','"scalar"');
CREATE TABLE dept(name text primary key, title text, budget int);
INSERT INTO dept VALUES ('eng','Engineering',1000),('ops','Operations',500),('law','Legal',50);
CREATE TABLE nums(n int primary key, k int, f float8);
INSERT INTO nums SELECT i, i%3, i*1.5 FROM generate_series(1,12) i;
CREATE TABLE pt(a int, b int, c text, primary key(a,b));
INSERT INTO pt VALUES (1,1,'one'),(1,2,'two'),(2,1,'three');

select info->'a', info->>'a', info->'b'->0, info#>'{b,1}', info#>>'{c,d}', info->'b'->-1 from emp where id=1;
select info @> '{"a":1}', info <@ '{"a":1}', info ? 'a', info ?| array['a','z'], info ?& array['a','z'] from emp order by id;
select '{"a":1}'::jsonb || '{"b":2}', '[1]'::jsonb || '2', '{"a":1,"b":2}'::jsonb - 'a', '[1,2,3]'::jsonb - 1, '{"a":{"b":1}}'::jsonb #- '{a,b}', '{"a":1,"b":2}'::jsonb - array['a','b'];
select info @? '$.b[*] ? (@ > 1)', info @@ '$.a == 1' from emp order by id;
select jsonb_set('{"a":1}', '{b}', '2'), jsonb_set('{"a":{"b":1}}', '{a,b}', '5'), jsonb_set('{"a":1}', '{b}', '2', false), jsonb_set('[1,2]','{0}','9'), jsonb_set('[1,2]','{-1}','9'), jsonb_set('{"a":1}', '{b,c}', '2');
select jsonb_insert('{"a":[0,1,2]}', '{a,1}', '"x"'), jsonb_insert('{"a":[0,1,2]}', '{a,1}', '"x"', true), jsonb_insert('{"a":1}', '{b}', '2');
select jsonb_set_lax('{"a":1}', '{a}', null), jsonb_set_lax('{"a":1}', '{a}', null, true, 'delete_key');
select jsonb_path_query('{"a":[1,2,3]}', '$.a[*]');
select * from jsonb_path_query('{"a":[1,2,3]}', '$.a[*] ? (@ >= $min)', '{"min":2}');
select jsonb_path_exists('{"a":[1,2]}', '$.a[*] ? (@ > 1)'), jsonb_path_match('{"a":1}', '$.a == 1'), jsonb_path_query_array('[1,2,3]', '$[*] ? (@ > 1)'), jsonb_path_query_first('[1,2,3]', '$[*]');
select jsonb_path_query_array('{"a":{"b":1},"c":[{"b":2},{"b":3}]}', '$.**.b');
select jsonb_path_query_array('[1,2,3]', '$[last]'), jsonb_path_query_array('[1,2,3]', '$[0 to 1]'), jsonb_path_query_array('[1,2,3]', '$.size()'), jsonb_path_query('[1.5,-2]', '$[*].abs()');
select jsonb_path_query('{"a":"abc"}', '$.a ? (@ like_regex "^a")'), jsonb_path_query('{"a":"abc"}', '$.a ? (@ starts with "ab")'), jsonb_path_query('{"a":1}', '$.a.type()'), jsonb_path_query('"2"','$.double()');
select jsonb_path_query('{"a":1}', 'strict $.b');
select jsonb_path_query('{"a":[1,2]}', '$.a + 1');
select * from jsonb_each('{"a":1,"b":"x"}');
select * from json_each_text('{"a":1,"b":"x","c":null}');
select key, value from emp, jsonb_each(info) where id = 1;
select id, e.* from emp, jsonb_array_elements(info->'b') e where id = 1;
select id, e from emp, jsonb_array_elements_text(info->'b') as e where id = 1;
select * from json_array_elements('[1,{"a":2},null]');
select value->>'a' from json_array_elements('[1,{"a":2},null]');
select jsonb_object_keys('{"b":1,"a":2}'), json_object_keys('{"b":1,"a":2}');
select * from jsonb_to_record('{"a":1,"b":"x"}') as x(a int, b text);
select * from jsonb_to_recordset('[{"a":1,"b":"x"},{"a":2}]') as x(a int, b text);
select * from json_to_recordset('[{"a":1,"b":[1,2]}]') as x(a int, b int[]);
select * from jsonb_populate_record(null::pt, '{"a":1,"b":2,"c":"x"}');
select * from jsonb_populate_recordset(null::pt, '[{"a":1,"b":2,"c":"x"},{"a":3}]');
select (jsonb_populate_record(null::pt, '{"a":1,"c":"x"}')).c;
select row_to_json(e) from emp e where id = 1;
select row_to_json(row(1,'a')), row_to_json((select x from (select 1 as a, 'b' as b) x)), to_jsonb(e) from pt e;
select to_json(x) from (select 1 as a, array[1,2] as b, '2020-01-01'::date as d, now() is null as n) x;
select json_build_object('a',1,'b',array[1,2],'c',null), jsonb_build_array(1,'a',null,1.5,true), json_build_array(), json_build_object();
select jsonb_pretty('{"a":[1,2],"b":{}}');
select json_strip_nulls('{"a":1,"b":null,"c":[null]}'), jsonb_strip_nulls('{"a":null}');
select json_typeof('1'), jsonb_typeof('{}'), jsonb_typeof('null'), json_typeof('"a"'), jsonb_typeof('[]'), jsonb_typeof('true');
select json_array_length('[1,2]'), jsonb_array_length('[]'), jsonb_array_length('{}');
select to_json('a"b'::text), to_jsonb(1.50), to_json(true), to_json('2020-01-01 10:00'::timestamp), to_jsonb(interval '1 day'), to_json(null::text);
select '{"a":1, "a":2}'::json, '{"a":1, "a":2}'::jsonb, '{"b":1,"aa":2,"a":3}'::jsonb;
select '{"a":1}'::jsonb = '{"a":1}'::jsonb, '1'::jsonb < '2'::jsonb;
select json_extract_path('{"a":{"b":1}}', 'a', 'b'), jsonb_extract_path_text('{"a":{"b":1}}', 'a', 'b');
select ('{"a":1}'::jsonb)['a'], ('[1,2]'::jsonb)[1];
update emp set info['z'] = '5' where id = 1 returning info;
update emp set info = jsonb_set(info, '{a}', '10') where id = 1 returning info->'a';
select (info->>'a')::int, (info->'a')::int from emp where id in (1,2);
select '1'::jsonb::int, '"a"'::jsonb #>> '{}', 'true'::jsonb::bool, '1.5'::jsonb::numeric;
select '"a"'::jsonb::int;
select json_object('{a,1,b,2}'), json_object('{a,b}', '{1,2}'), jsonb_object('{a,1}');
select jsonb_agg(x) from jsonb_array_elements('[3,1,2]') x;
select e->>'id' from (select to_jsonb(emp) e from emp) s order by 1 limit 2;
select jsonb_build_object('emp', row_to_json(d)) from dept d where name = 'law';
select '{"a":[1,2,{"b":3}]}'::jsonb @> '{"a":[{"b":3}]}', '["a","b"]'::jsonb ? 'a', '"a"'::jsonb <@ '["a"]';
select info->'b' from emp where info->>'a' = '1';
select json_each('{"a":1}');
select (json_each('{"a":1}')).*;
select (jsonb_each_text('{"a":1}')).value;
select json_build_object('a');
select json_build_object(null, 1);
select '{"a": {"b": ["x"]}}'::json #> '{a,b,0}', '{"a":1}'::json->'z', '[1,2]'::json->1, '[1,2]'::json->>5;
select row_to_json(t, true) from (select 1 a, 2 b) t;
select json_agg(t) from (select n, k from nums where n<3) t;
select to_jsonb(row(1,2)), jsonb_agg(row(1,'x'));
select json_query('{}', '$');
select '{"a":1}'::jsonb::text, '{"a":1}'::json::jsonb, '{"a":1}'::text::jsonb;
select jsonb '{"x":1}' -> 'x', json '[1]' -> 0;
