-- Aggregates: ordered sets, statistics, grouping sets

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
CREATE TABLE kv(k text primary key, v int, ts timestamptz default '2024-01-01 00:00:00+00');
INSERT INTO kv(k,v) VALUES ('a',1),('b',2),('c',3);

select count(distinct dept), count(distinct (dept, salary)), sum(distinct salary) from emp;
select string_agg(name, ', ' order by name desc), array_agg(id order by salary desc nulls last, id) from emp;
select string_agg(distinct dept, ',' order by dept) from emp;
select count(*) filter (where dept='eng') as e, sum(salary) filter (where id > 2) from emp;
select percentile_cont(0.5) within group (order by salary), percentile_disc(0.5) within group (order by salary) from emp;
select percentile_cont(array[0.25,0.5,0.75]) within group (order by salary) from emp;
select percentile_disc(array[0.25,0.5,0.75]) within group (order by name) from emp;
select mode() within group (order by dept) from emp;
select dept, percentile_cont(0.9) within group (order by salary desc) from emp group by dept order by dept;
select percentile_cont(0.5) within group (order by hired - date '2020-01-01') from emp;
select rank(150) within group (order by salary), dense_rank(150) within group (order by salary), percent_rank(150) within group (order by salary), cume_dist(150) within group (order by salary) from emp;
select corr(n,f), covar_pop(n,f), covar_samp(n,f), regr_slope(n,f), regr_intercept(n,f), regr_r2(n,f), regr_count(n,f), regr_avgx(n,f), regr_avgy(n,f), regr_sxx(n,f), regr_syy(n,f), regr_sxy(n,f) from nums;
select bool_and(n>0), bool_or(n>11), every(n>1) from nums;
select bit_and(n), bit_or(n), bit_xor(n) from nums;
select json_agg(name), jsonb_agg(id order by id desc), json_object_agg(name, salary), jsonb_object_agg(name, id) from emp where id < 4;
select json_agg(e) from (select id, name from emp where id<3) e;
select json_agg(row_to_json(e)) from (select id, name from emp where id<3) e;
select dept, count(*), grouping(dept) from emp group by rollup(dept) order by 1,2;
select dept, boss, count(*) from emp group by rollup(dept, boss) order by 1,2,3;
select dept, boss, count(*) from emp group by dept, rollup(boss) order by 1,2,3;
select dept, boss, count(*) from emp group by grouping sets (dept, cube(boss)) order by 1,2,3;
select dept d, count(*) from emp group by d order by d;
select dept, count(*) from emp group by 1 order by 2 desc, 1;
select e.id, e.name, count(*) from emp e join emp f on f.boss = e.id group by e.id order by e.id;
select name, count(*) from emp group by dept;
select dept, name from emp group by dept;
select upper(dept), count(*) from emp group by upper(dept) order by 1;
select dept from emp group by dept having count(*) > 1 order by dept;
select count(*) from emp having count(*) > 100;
select max(hired), min(name), max(tags), max(id::bigint) from emp;
select sum(null::int), avg(1), count(null);
select any_value(1);
select json_object_agg(null, 1);
select jsonb_object_agg(k, v order by v desc) from kv;
select sum(v) from kv where false;
select sum(v) filter (where v > 1) * 2 + count(*) from kv;
select max(array[1,2]), min(interval '1 day'), avg(interval '1 day'), sum(interval '1 h');
select sum(1::smallint), sum(1::bigint), avg(1::real), sum(1.5::real);
select dept, sum(salary) from emp group by dept order by sum(salary) desc nulls last;
select count(*), sum(n) from nums group by ();
select k, n%2 as p, count(*) from nums group by k, p order by 1,2;
select sum(count(*)) from nums;
select max(n) from nums where max(n) > 1;
select string_agg(name::bytea, ','::bytea) from emp where id<3;
select array_agg(distinct dept order by dept desc) from emp;
select string_agg(n::text, ',' order by n) filter (where n<4) from nums;
select min(true);
select range_agg(1);
select max('2020-01-01'::timestamptz), min('10:00'::time);
select mode() within group (order by k desc) from nums;
-- of equal values the last
select max(x), min(x) from (values (interval '30 days'), (interval '1 mon')) v(x);
select max(x), min(x) from (values (1.0), (1.00)) v(x);
