-- Window functions: frames, exclusion, named windows

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

select n, row_number() over (order by n desc) from nums order by n;
select n, k, sum(n) over (partition by k order by n rows between 1 preceding and 1 following) from nums order by n;
select n, sum(n) over (order by n rows between unbounded preceding and current row) from nums;
select n, sum(n) over (order by n rows between 2 preceding and current row), avg(n) over (order by n rows 2 preceding) from nums;
select n, k, sum(n) over (order by k range between 1 preceding and current row) from nums order by n;
select n, k, sum(n) over (order by k groups between 1 preceding and 1 following) from nums order by n;
select n, k, sum(n) over (order by k rows between unbounded preceding and unbounded following exclude current row) from nums order by n;
select n, k, sum(n) over (order by k range between unbounded preceding and unbounded following exclude group) from nums order by n;
select n, k, sum(n) over (order by k range between unbounded preceding and unbounded following exclude ties) from nums order by n;
select n, ntile(5) over (order by n), percent_rank() over (order by k), cume_dist() over (order by k) from nums order by n;
select n, first_value(n) over w, last_value(n) over w, nth_value(n,2) over w from nums window w as (partition by k order by n) order by n;
select n, last_value(n) over (partition by k order by n rows between unbounded preceding and unbounded following) from nums order by n;
select n, lag(n) over w, lag(n,2) over w, lag(n,2,-1) over w, lead(n,1,0) over w from nums window w as (order by n);
select dept, salary, rank() over (partition by dept order by salary desc nulls last), dense_rank() over (order by salary) from emp order by id;
select id, count(*) filter (where salary > 100) over (partition by dept) from emp order by id;
select id, string_agg(name, ',') over (order by id) from emp;
select id, array_agg(name) over (partition by dept order by id) from emp order by id;
select id, sum(salary) over w1, avg(salary) over w2 from emp window w1 as (partition by dept), w2 as (w1 order by id) order by id;
select dept, sum(sum(salary)) over (order by dept), rank() over (order by sum(salary) desc nulls last) from emp group by dept order by dept;
select id, salary - lag(salary, 1, 0) over (order by id) as diff from emp;
select * from (select id, row_number() over (partition by dept order by salary desc) rn from emp) s where rn = 1 order by id;
select id, hired, count(*) over (order by hired range between interval '6 months' preceding and current row) from emp order by id;
select n, f, sum(f) over (order by f range between 3 preceding and 1.5 following) from nums;
select n, max(n) over (order by n rows between 3 preceding and 1 preceding), min(n) over (order by n rows between 1 following and 2 following) from nums;
select n, count(*) over (), sum(n) over () from nums;
select n, nth_value(n, 0) over () from nums;
select n, ntile(0) over () from nums;
select n, sum(n) over (order by n rows between -1 preceding and current row) from nums;
select sum(row_number() over ()) from nums;
select n from nums where row_number() over () = 1;
select row_number() from nums;
select n, percentile_cont(0.5) within group (order by n) over () from nums;
select n, lag(n, k) over (order by n) from nums;
select n, lag(f, 1, 5) over (order by n) from nums;
select n, sum(n) over (order by k desc range between 1 preceding and 1 following) from nums order by n;
select n, sum(distinct n) over () from nums;
select n, max(f) over (partition by k order by n desc rows between current row and unbounded following) from nums order by n;
select distinct dept, count(*) over (partition by dept) from emp order by 1;
select n, row_number() over w - 1 as idx, n::float / sum(n) over () as frac from nums window w as (order by n) order by n limit 4;
select n, sum(n) over (order by n groups 1 preceding) from nums;
select n, first_value(n) over (order by n rows between 2 following and 3 following) from nums;
