#!/usr/bin/env bash
# Records what PostgreSQL 15's catalogs say of its own types, functions, operators and so on, in COPY's text format with the
# columns of ../layout.txt. Usage: record.sh DSN, of a database in which nothing was created.
set -euo pipefail
cd "$(dirname "$0")"

record() { # relation, FROM … WHERE …; regproc columns become OIDs, ACLs and parse trees NULL
  local columns
  columns=$(psql -XAtq "$dsn" -v ON_ERROR_STOP=1 -c "
    SELECT string_agg(CASE
      WHEN attname = 'proargdefaults' THEN '(SELECT string_agg(pg_get_function_arg_default(t.oid, n), '', '' ORDER BY n)
                                             FROM generate_series(1, t.pronargs) n)'
      WHEN atttypid IN ('aclitem[]'::regtype, 'pg_node_tree'::regtype) THEN 'NULL'
      WHEN atttypid = 'regproc'::regtype THEN 't.' || attname || '::oid'
      ELSE 't.' || attname END, ', ' ORDER BY attnum)
    FROM pg_attribute WHERE attrelid = '$1'::regclass AND attnum > 0")
  psql -Xq "$dsn" -v ON_ERROR_STOP=1 -c "COPY (SELECT $columns FROM $1 t WHERE $2 ORDER BY 1, 2) TO STDOUT" > "$1.tsv"
}

dsn=$1
record pg_type "typnamespace = 11 AND typtype IN ('b', 'p') AND (typrelid = 0)"
record pg_proc "pronamespace = 11"
record pg_aggregate "true"
record pg_operator "oprnamespace = 11"
record pg_cast "true"
record pg_opfamily "opfmethod = 403"
record pg_opclass "opcmethod = 403"
record pg_amop "amopmethod = 403"
record pg_amproc "amprocfamily IN (SELECT oid FROM pg_opfamily WHERE opfmethod = 403)"
record pg_language "oid < 100"
record pg_am "oid IN (2, 403, 2742)"
record pg_collation "oid IN (100, 950, 951)"
record pg_description "objsubid = 0 AND classoid IN ('pg_type'::regclass, 'pg_proc'::regclass, 'pg_operator'::regclass,
  'pg_cast'::regclass, 'pg_opfamily'::regclass, 'pg_opclass'::regclass, 'pg_language'::regclass, 'pg_am'::regclass,
  'pg_collation'::regclass)"
