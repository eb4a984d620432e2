-- Statements that write in WITH: one snapshot for all of them

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
CREATE TABLE pt(a int, b int, c text, primary key(a,b));
INSERT INTO pt VALUES (1,1,'one'),(1,2,'two'),(2,1,'three');

with x as (insert into kv(k,v) values ('d',4) returning k, v) select * from x;
with x as (update kv set v = v+1 where k='a' returning *) select k, v from x;
with x as (delete from kv where k='d' returning k) select count(*) from x;
with moved as (delete from kv where k='c' returning k,v), ins as (insert into kv(k,v) select k||'2', v from moved returning k) select * from ins;
with ins as (insert into kv(k,v) values ('a',5),('z',6) on conflict (k) do nothing returning k,v) select k,v,'new' from ins union all select k,v,'old' from kv where k in ('a','z') order by 1;
with ins as (insert into kv(k,v) values ('a',5),('y',6) on conflict (k) do update set v = kv.v + excluded.v returning k,v) select i.k,i.v,kv.v from ins i left join kv using(k) order by 1;
select k,v from kv order by k;
with a as (update kv set v = 100 where k='a' returning k) delete from kv where k in (select k from a) or k='b' returning k;
with a as (insert into kv(k) values ('silent')) select * from a;
with a as (insert into kv(k) values ('silent')) select 1;
select * from (with a as (insert into kv(k) values ('silent')) select 1) s;
with a as (insert into kv(k,v) values ('p1',1) returning k), b as (insert into kv(k,v) select k||'x', 2 from a returning k) insert into kv(k,v) select k||'y',3 from b returning k, v;
with a as (select max(v) m from kv), b as (update kv set v = (select m from a) where k='y' returning v) select a.m, b.v from a,b;
with r as (delete from nums where n > 10 returning *), s as (select sum(n) t from r) insert into kv(k,v) select 'sum', t from s returning *;
with a as (insert into kv(k,v) values ('dup',1) returning k), b as (insert into kv(k,v) values ('dup',2) returning k) select * from a,b;
select k,v from kv order by k;
with a as (insert into pt values (9,9,'z')) select count(*) from pt where a = 9;
with upd as (update emp set salary = salary * 2 where dept='eng' returning id, salary) select e.id, e.salary old, u.salary new from emp e join upd u using (id) order by 1;
with recursive t(n) as (select 1 union all select n+1 from t where n<3), i as (insert into kv(k,v) select 'r'||n, n from t returning k) select * from i order by 1;
create table fkp(id int primary key, n text);
create table fkc(id int primary key, p int references fkp on delete cascade);
with p as (insert into fkp values (1,'x') returning id) insert into fkc select 10, id from p returning *;
with p as (insert into fkp values (2,'y') returning id), c as (insert into fkc select id+10, id from p returning id, p) select c.id, c.p from c;
with d as (delete from fkp where id = 1 returning id) select count(*) from fkc, d;
select * from fkc;
with d as (insert into fkc values (99, 77) returning id) select * from d;
