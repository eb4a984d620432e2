-- COPY in all its formats, options and errors.
create table t (a int primary key, b varchar(5), c numeric(6,2) default 1.5, d timestamp);
copy t from stdin;
1	x	\N	2020-01-01 10:00:00
2	\\a\tb	3.14159	\N
\.
select * from t order by a;
copy t (b, a) from stdin;
hello	3
\x41\102	4
\.
select * from t order by a;
copy t from stdin;
5	toolongvalue	1	\N
\.
copy t from stdin;
5	ok	1	\N
x	ok	1	\N
\.
copy t from stdin;
5	ok	1
\.
copy t from stdin;
5	ok	1	\N	extra
\.
copy t from stdin;
6	ok	1	\N
1	dup	1	\N
7	ok	1	\N
\.
copy t from stdin;
\N	ok	1	\N
\.
copy t (a,c) from stdin with csv header;
a,c
10,"3.5"
11,
\.
copy t from stdin (format csv, header match);
a,b,x,d
\.
copy t from stdin (format csv, header match);
a,b,c
\.
copy t from stdin (format csv, delimiter ';', null 'NULL', quote '''', escape '\');
20;'a;b\'';NULL;NULL
21;NULL;2;'2020-02-02'
22;'NULL';2;'2020-02-02'
\.
select * from t order by a;
copy t to stdout;
copy t (b, a) to stdout (format csv, header, force_quote *);
copy (select a, b from t where a < 4 order by a desc) to stdout with csv;
copy (insert into t (a) values (100) returning a, c) to stdout;
copy t from stdin where a % 2 = 1;
30	a	1	\N
31	b	1	\N
\.
select a from t where a >= 30 order by a;
copy nope from stdin;
copy t (zz) from stdin;
copy t (a, a) from stdin;
copy t from stdin (format xml);
copy t from stdin (bogus);
copy t from stdin (format csv, delimiter 'ab');
copy t to stdout (header match);
copy t from stdin (format binary, delimiter '|');
copy t from stdin (force_quote (a));
copy t from stdin (format csv, force_quote (a));
copy t to stdout (format csv, force_quote (zz));
copy t from stdin where sum(a) > 1;
copy (select 1);
copy t from stdin (null 'a	b');
copy t from stdin (delimiter 'a');
copy t from stdin (format text, format csv);
create table ck (a int check (a > 0), b text not null default 'q');
copy ck from stdin;
1	x
0	y
\.
copy ck from stdin;
1	\N
\.
copy ck(a) from stdin csv;
1
2
\.
copy ck to stdout csv header;
copy ck to stdout delimiter '|';
copy ck to stdout with delimiter as '|' null as 'n';
begin; create table fz (a int); copy fz from stdin (freeze);
5
\.
commit;
select * from fz;
drop table fz;
select count(*) from ck;
copy ck from stdin csv;
1,"unterminated
\.
copy ck from stdin csv;
1,"multi
line"
2,x
bad,y
\.
copy ck from stdin (format csv, force_null (b), force_not_null (a));
3,""
\.
copy ck from stdin (format csv, force_not_null (b));
3,
\.
select * from ck order by a, b;
copy (select 'a'||chr(9)||E'b\\c\n', null, E'x,"y"') to stdout;
copy (select 'a'||chr(9)||E'b\\c\n', null, E'x,"y"', '') to stdout csv;
copy (select 1.50::numeric, true, '2020-01-01'::date, array[1,2], '\x00ff'::bytea) to stdout;
drop table t, ck;
