-- Strings, patterns, numbers, dates and times

CREATE TABLE emp(id int primary key, name text not null, dept text, salary numeric(10,2), hired date, boss int, tags text[], info jsonb);
INSERT INTO emp VALUES (1,'ann','eng',100.50,'2020-01-01',null,'{a,b}','{"a":1,"b":[1,2,3],"c":{"d":"x"}}'),
(2,'bob','eng',200,'2020-06-15',1,'{b,c}','{"a":2,"b":[],"c":null}'),
(3,'cat','ops',150,'2021-03-03',1,'{}','{"a":"str"}'),
(4,'dan','ops',150,'2019-12-31',2,null,null),
(5,'eve','hr',null,'2022-02-28',3,'{a,NULL,c}','[1,2,{"x":true}]'),
(6,'fay',null,90.25,null,3,'{z}','"scalar"');
CREATE TABLE nums(n int primary key, k int, f float8);
INSERT INTO nums SELECT i, i%3, i*1.5 FROM generate_series(1,12) i;

select regexp_match('abc123','([a-z]+)(\d+)'), regexp_matches('a1b2','[a-z]\d','g');
select regexp_replace('abcabc','b','X'), regexp_replace('abcabc','b','X','g'), regexp_replace('abc','(a)(b)','\2\1'), regexp_replace('ABC','b','x','i'), regexp_replace('abcabc','b','X',1,2), regexp_replace('a','a','\&\&');
select * from regexp_split_to_table('a, b,c', ',\s*');
select regexp_split_to_array('a b  c','\s+'), regexp_substr('abc123','\d+'), regexp_count('a1b2','\d'), regexp_like('abc','^A','i'), regexp_instr('abc1','\d');
select 'abc' similar to '(a|x)%', 'abc' not similar to 'a', 'abc' similar to '_b_';
select 'abc' ~ 'b', 'ABC' ~* 'b', 'abc' !~ 'z', 'abc' !~* 'B', 'abc' ~~ 'a%', 'abc' ilike 'A_C', 'a%c' like 'a\%c', 'a%c' like 'a!%c' escape '!';
select format('%s is %I and %L', 'x', 'My Col', 'it''s'), format('%2$s %1$s','a','b'), format('%-5s|%5s|', 'a','b'), format('%%'), format('%s', null), format('%L', null), format('%*s', 5, 'x');
select to_char(1234.567, '9,999.99'), to_char(-5, '999'), to_char(0.5,'0.99'), to_char(12,'FM000'), to_char(1234,'L9999'), to_char(42,'RN'), to_char(1e10::float8,'9.99EEEE'), to_char(5,'999th');
select to_char(timestamp '2024-02-03 04:05:06.789', 'YYYY-MM-DD HH24:MI:SS.MS'), to_char(date '2024-02-03','Day, DD Month YYYY'), to_char(date '2024-02-03','FMDay, FMDDth FMMonth'), to_char(timestamp '2024-02-03 15:00','HH12:MI AM'), to_char(date '2024-12-30','IYYY-IW-ID'), to_char(date '2024-02-03', 'DDD Q WW J');
select to_char(interval '1 day 02:03:04', 'DD HH24:MI:SS'), to_char(timestamptz '2024-01-01 00:00+00' at time zone 'UTC', 'TZ');
select to_date('2024-02-03','YYYY-MM-DD'), to_date('03 Feb 2024','DD Mon YYYY'), to_timestamp('2024-02-03 04:05:06','YYYY-MM-DD HH24:MI:SS'), to_timestamp(1700000000), to_number('1,234.5','9,999.9'), to_number('-12','S99');
select overlay('abcdef' placing 'XX' from 2 for 3), substring('abcdef' from 2 for 3), substring('abcdef' from 'b(.)d'), substring('abcdef', 3), position('c' in 'abc'), trim(both 'x' from 'xxaxx'), trim(leading from '  a'), substring('abc' for 2);
select translate('abc','ab','xy'), initcap('hello world-foo bar'), lpad('a',3,'xy'), rpad('a',4), repeat('ab',2), reverse('abc'), split_part('a,b,c',',',2), split_part('a,b,c',',',-1), left('abc',-1), right('abc',2), strpos('abc','c'), ascii('A'), chr(65), concat('a',null,1), concat_ws(',','a',null,'b'), btrim('xax','x'), ltrim('xxa','x'), starts_with('abc','ab');
select encode('abc'::bytea,'hex'), encode('abc','base64'), decode('616263','hex'), decode('YWJj','base64'), convert_from('abc'::bytea,'UTF8'), convert_to('abc','UTF8'), md5('a'), sha256('a'::bytea), sha512('a') is not null, encode(sha224('a'),'hex'), encode('a\b'::text::bytea,'escape');
select length(gen_random_uuid()::text), uuid_nil();
select date_trunc('month', timestamp '2024-02-15 10:11:12'), date_trunc('day', timestamptz '2024-02-15 10:00+00', 'America/New_York'), date_trunc('week', date '2024-02-15'), date_trunc('hour', interval '1 day 3:04:05'), date_trunc('quarter', timestamp '2024-05-05');
select date_part('year', date '2024-02-15'), extract(epoch from timestamp '2024-01-01'), extract(dow from date '2024-02-15'), extract(isodow from date '2024-02-15'), extract(week from date '2024-01-01'), extract(doy from date '2024-02-15'), extract(hour from time '10:11'), extract(epoch from interval '1 day'), extract(millennium from date '2024-01-01'), extract(microseconds from time '1:02:03.4');
select age(timestamp '2024-03-01', timestamp '2023-01-15'), age(date '2024-03-01', date '2024-01-31'), date_bin('15 minutes', timestamp '2024-01-01 10:07', timestamp '2024-01-01');
select make_date(2024,2,29), make_time(1,2,3.5), make_timestamp(2024,1,2,3,4,5.5), make_interval(days => 3, hours => 2), make_interval(1,2,3,4,5,6,7), make_timestamptz(2024,1,1,0,0,0,'UTC');
select justify_days(interval '35 days'), justify_hours(interval '27 hours'), justify_interval(interval '1 month -1 day');
select generate_series(timestamp '2024-01-01', timestamp '2024-01-03', interval '1 day');
select * from generate_series(date '2024-01-01', date '2024-01-03', '1 day') d;
select * from generate_series(1.0, 2.0, 0.5) g;
select generate_series(5,1,-2), generate_series(1,2);
select interval '1 year 2 months 3 days 04:05:06', interval '1.5 hours', interval '-1 day', interval '1 day' * 2.5, interval '1 day' / 2, interval '1 month' + interval '1 day', interval 'P1Y2M3DT4H', interval '3' day, interval '1-2' year to month, '1 week'::interval, '90 minutes'::interval;
select date '2024-01-31' + interval '1 month', date '2024-01-01' + 5, date '2024-03-01' - date '2024-02-01', timestamp '2024-01-01' - timestamp '2023-01-01', time '10:00' + interval '3 hours', date '2024-01-01' + time '10:00', timestamp '2024-01-01' - interval '1 second', time '10:00' - time '09:00';
select current_date = now()::date, localtimestamp is not null, current_time is not null, clock_timestamp() > now() - interval '1h', transaction_timestamp() = now(), statement_timestamp() is not null, timeofday() is not null;
select 'infinity'::timestamp, '-infinity'::date, isfinite(date '2024-01-01'), 'epoch'::timestamp, 'today'::date = current_date, 'tomorrow'::date - 'yesterday'::date;
select 'a'||1, 1||'a', 'a'||null, 'a'||true, 'a' || array['b'];
select format('%1$s %1$L', 'x'), concat_ws(null,'a'), lpad('abc',2), substr('abc',-1,3), substr('abc',0), substring('abc' from -1 for 3);
select 'a' collate "C" < 'B' collate "C", name collate "C" from emp order by name collate "C" limit 1;
select 'a' < 'B', 'ä' > 'z';
select to_timestamp('1700000000','9999999999'), to_char(now(),'YYYY') = extract(year from now())::text;
select round(1234.567,-2), round(-0.5), trunc(-1.5), 7/2, -7/2, 7%-3, 7.0/2, 1/3.0, 2^0.5, 10::numeric(5,2), 1e3, 1.5e-3, 0.1+0.2, 0.1::float8+0.2::float8, 1::float4/3;
select 1/0;
select 1.0/0;
select 'abc'::int;
select 99999999999::int;
select 32767::smallint + 1::smallint;
select ln(0);
select sqrt(-1);
select substring('abc' from 1 for -1);
select to_date('2024-13-01','YYYY-MM-DD');
select '2024-02-30'::date;
select regexp_replace('a','(','');
select timestamp '2024-01-01' at time zone 'Nowhere/City';
select date_trunc('foo', now());
select extract(foo from now());
select 1::text::int + '2', '5'::int4 + 2.5, 5::int2 + 7::int8;
select date '2024-01-01' - interval '1 day', (date '2024-01-01' - 1)::text, to_char(date '2024-01-01' - interval '1 day', 'Dy');
select greatest(1,2,null), least('b','a'), greatest(1,2.5), nullif(1,1), nullif('a','b'), coalesce(null,null,3);
select num_nulls(1,null), num_nonnulls(1,null), num_nonnulls(variadic array[1,null]);
select ascii(''), chr(0);
select string_agg(chr(n+64), '') from nums;
select erf(1);
