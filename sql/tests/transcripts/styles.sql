-- IntervalStyle, and the forms of TIME ZONE.
CREATE TABLE spans (i interval);
INSERT INTO spans VALUES ('0'), ('1 year 2 mons'), ('-1 year -2 mons'), ('3 days'), ('-3 days'), ('04:05:06.789'),
  ('-04:05:06'), ('1 year 2 mons -3 days'), ('1 mon 1 day 1 hour'), ('-1 day +02:00:00'), ('1 day -02:03:00.5'), ('36 hours'),
  ('00:00:01'), ('-00:00:00.5'), ('-1 mon -1 day -00:00:01'), ('2 days 10:00'), ('100 years -1 mon'), ('00:01:00.000001');
SELECT i FROM spans;
SET intervalstyle = iso_8601;
SELECT i, i::text::interval = i AS same FROM spans;
SET intervalstyle = 'sql_standard';
SELECT i FROM spans;
SET intervalstyle = postgres_verbose;
SELECT i FROM spans;
SET intervalstyle = other;
RESET intervalstyle;
SET TIME ZONE INTERVAL '+02:30' HOUR TO MINUTE;
SHOW timezone;
SELECT timestamptz '2024-01-01 00:00+00';
SET TIME ZONE INTERVAL '-08:00' HOUR TO SECOND;
SET TIME ZONE INTERVAL '1 day';
SET TIME ZONE INTERVAL '1 month';
SET TIME ZONE INTERVAL '200:00';
SET TIME ZONE INTERVAL '5' HOUR;
SHOW timezone;
SET TIME ZONE -3.5;
SHOW timezone;
SELECT timestamptz '2024-01-01 00:00+00';
SET timezone = '+05:30';
SHOW timezone;
SELECT timestamptz '2024-01-01 00:00+00';
SET timezone = '+5';
SHOW timezone;
SET timezone = 'UTC+3';
SHOW timezone;
SELECT timestamptz '2024-01-01 00:00+00', to_char(timestamptz '2024-01-01 00:00+00', 'TZ');
SET timezone = '-08';
SELECT timestamptz '2024-01-01 00:00+00';
SET timezone = '<+05:30>-05:30';
SELECT timestamptz '2024-01-01 00:00+00';
SET timezone = 'interval ''1:30''';
SHOW timezone;
SET timezone = 200;
SET timezone = 'nowhere';
RESET timezone;
SELECT timestamptz '2024-01-01 00:00+00' AT TIME ZONE '+05:30', timestamptz '2024-01-01 00:00+00' AT TIME ZONE 'UTC+3',
  timestamptz '2024-01-01 00:00+00' AT TIME ZONE '<+05>-05', timestamptz '2024-01-01 00:00+00' AT TIME ZONE INTERVAL '2:30';
