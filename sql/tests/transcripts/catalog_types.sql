-- How clients name types and describe columns: what ORMs read before they change a schema.
CREATE TABLE kinds (
  id integer GENERATED ALWAYS AS IDENTITY (START 5 INCREMENT 2), name varchar(7), code char(3), price numeric(5,2),
  any_number numeric, tags integer[], made timestamptz, day date, data bytea, plain text, small smallint, wide bigint,
  ratio double precision, less real, who name, flag boolean, key uuid, doc jsonb);
COMMENT ON COLUMN kinds.name IS 'as it is written';
SELECT column_name, data_type, udt_schema, udt_name, dtd_identifier FROM information_schema.columns
  WHERE table_name = 'kinds' ORDER BY ordinal_position;
SELECT column_name, character_maximum_length AS most, character_octet_length AS octets, numeric_precision AS p,
  numeric_precision_radix AS radix, numeric_scale AS s, datetime_precision AS moment, collation_name
  FROM information_schema.columns WHERE table_name = 'kinds' ORDER BY ordinal_position;
SELECT identity_generation, identity_start, identity_increment, identity_maximum, identity_minimum, identity_cycle
  FROM information_schema.columns WHERE table_name = 'kinds' AND is_identity = 'YES';
SELECT column_name, ('"' || udt_schema || '"."' || udt_name || '"')::regtype::text FROM information_schema.columns
  WHERE table_name = 'kinds' ORDER BY ordinal_position;
SELECT '"int4"'::regtype, 'pg_catalog."int4"'::regtype, '"pg_catalog"."_text"'::regtype, '"char"'::regtype,
  'pg_catalog.varchar'::regtype, 'character varying'::regtype;
SELECT '"Int4"'::regtype;
SELECT '"character varying"'::regtype;
SELECT pgd.description FROM pg_catalog.pg_statio_all_tables AS st JOIN pg_catalog.pg_description pgd ON pgd.objoid = st.relid
  WHERE st.relname = 'kinds';
PREPARE by_names AS SELECT tablename FROM pg_tables WHERE schemaname = ANY ($1);
EXECUTE by_names('{public,nowhere}');
WITH RECURSIVE w AS (SELECT 1 AS i FROM w) SELECT * FROM w;
WITH RECURSIVE w AS (SELECT 1 AS i INTERSECT SELECT i FROM w) SELECT * FROM w;
SELECT ('abc'::name)[0], ('abc'::name)[2], pg_typeof(('abc'::name)[0]), typname[0] = '_' FROM pg_type WHERE typname = '_int4';
