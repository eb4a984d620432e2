-- What pg_dump asks for besides the catalogs.
CREATE TABLE dumped (id int PRIMARY KEY);
LOCK TABLE public.dumped IN ACCESS SHARE MODE;
BEGIN;
LOCK TABLE public.dumped, ONLY dumped IN ACCESS SHARE MODE;
LOCK dumped IN ACCESS SHARE MODE NOWAIT;
LOCK TABLE nowhere IN ACCESS SHARE MODE;
ROLLBACK;
SELECT replace(acldefault('n', oid)::text, rolname, 'me'), replace(acldefault('r', oid)::text, rolname, 'me'),
  replace(acldefault('f', oid)::text, rolname, 'me'), acldefault('c', oid) FROM pg_roles WHERE rolname = current_user;
SELECT upper('ßa'), initcap('ß ab');
SELECT nspname FROM pg_depend d JOIN pg_namespace n ON n.oid = d.objid AND d.classid = 'pg_namespace'::regclass
  WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND nspname = 'public';
