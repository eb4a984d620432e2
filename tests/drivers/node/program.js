// node-postgres: pools, prepared statements, transactions, rows by name, every type as text, cancelling.
'use strict'

const assert = require('node:assert/strict')
const { Client, Pool, types } = require('pg')

const URL = process.env.DATABASE_URL
let failed = 0

async function step(name, run) {
  try {
    await run()
    console.log(`ok ${name}`)
  } catch (error) {
    failed += 1
    console.log(`FAILED ${name}: ${error.stack}`)
  }
}

async function withClient(run, options = {}) {
  const client = new Client({ connectionString: URL, ...options })
  await client.connect()
  try {
    return await run(client)
  } finally {
    await client.end()
  }
}

const code = (sqlstate) => (error) => {
  assert.equal(error.code, sqlstate, error.message)
  return true
}

// What is written as text comes back as this text: PostgreSQL's own form.
const TYPES = {
  boolean: ['true', 'false'],
  smallint: ['-32768', '32767'],
  integer: ['-2147483648', '2147483647'],
  bigint: ['-9223372036854775808', '9223372036854775807'],
  real: ['1.5', '-2.25e-30', 'NaN', 'Infinity'],
  'double precision': ['0.1', '1e+300', '5e-324', '-Infinity'],
  numeric: ['0.10', '-12345678901234567890.123456789', 'NaN'],
  text: ['', 'käse 🧀', '{"a",b\\c}\n'],
  'varchar(20)': ['twenty characters ok'],
  'char(5)': ['ab   '],
  bytea: ['\\x', '\\x00ff5c27'],
  date: ['2000-01-01', '0001-01-01', '9999-12-31', '0044-03-15 BC', 'infinity'],
  time: ['00:00:00', '23:59:59.999999'],
  timetz: ['00:00:00+00', '23:59:59.5+05:30'],
  timestamp: ['1999-12-31 23:59:59.999999', '0044-03-15 12:00:00 BC', '-infinity'],
  timestamptz: ['2024-02-29 12:00:00+00', '1970-01-01 00:00:00.000001+00'],
  interval: ['00:00:00', '1 year 2 mons -3 days +04:05:06.7', '-1 days'],
  uuid: ['01234567-89ab-cdef-0123-456789abcdef'],
  json: ['{"k" : [1, 2.50]}', 'null'],
  jsonb: ['{"k": [1, 2.50]}', '"x"'],
  oid: ['0', '4294967295'],
}

async function everyType(client) {
  await client.query("SET TimeZone = 'UTC'")
  const raw = { getTypeParser: () => (value) => value }
  for (const [type, values] of Object.entries(TYPES)) {
    await step(type, async () => {
      const table = `js_${type.replace(/\W/g, '')}`
      await client.query(`CREATE TABLE ${table} (id int PRIMARY KEY, v ${type}, a ${type}[])`)
      for (const [i, value] of values.entries()) {
        await client.query(`INSERT INTO ${table} VALUES ($1, $2, $3)`, [i, value, [value, null]])
      }
      await client.query(`INSERT INTO ${table} VALUES ($1, $2, $3)`, [values.length, null, null])
      const query = { text: `SELECT v, a, a[1] AS f FROM ${table} ORDER BY id`, types: raw }
      const { rows } = await client.query(query)
      const short = (v) => (type === 'boolean' ? v[0] : v)
      values.forEach((value, i) => {
        assert.equal(rows[i].v, short(value))
        assert.equal(rows[i].f, short(value))
      })
      assert.deepEqual([rows.at(-1).v, rows.at(-1).a], [null, null])
    })
  }
}

async function parsed(client) {
  const { rows, fields } = await client.query({
    text: `SELECT $1::int AS i, $2::bool AS b, $3::float8 AS d, $4::text[] AS t, $5::jsonb AS j,
                  $6::timestamptz AS at, $7::bytea AS y, $8::int[] AS n, NULL AS nothing, $9::bigint AS big`,
    values: [7, true, 1.5, ['a', 'b "c", {d}', null], { k: [1] }, new Date(1e12 + 1), Buffer.from([0, 255]), [1, 2], '9'],
  })
  assert.deepEqual(rows[0], {
    i: 7,
    b: true,
    d: 1.5,
    t: ['a', 'b "c", {d}', null],
    j: { k: [1] },
    at: new Date(1e12 + 1),
    y: Buffer.from([0, 255]),
    n: [1, 2],
    nothing: null,
    big: '9',
  })
  assert.deepEqual(fields.map((f) => f.dataTypeID), [23, 16, 701, 1009, 3802, 1184, 17, 1007, 25, 20])
  const binary = await client.query({ text: 'SELECT 7::int AS i, 1.5::float8 AS d, true AS b', binary: true, values: [] })
  assert.deepEqual(binary.rows[0], { i: 7, d: 1.5, b: true })
  const array = await client.query({ text: 'SELECT 1, 1', rowMode: 'array' })
  assert.deepEqual(array.rows, [[1, 1]])
}

async function transactions(client) {
  await client.query('CREATE TABLE js_tx (k int PRIMARY KEY, v text NOT NULL)')
  await client.query('BEGIN')
  await client.query('INSERT INTO js_tx VALUES ($1, $2)', [1, 'rolled back'])
  await client.query('ROLLBACK')
  await client.query('BEGIN')
  await client.query('INSERT INTO js_tx VALUES ($1, $2)', [1, 'kept'])
  await client.query('SAVEPOINT s')
  await assert.rejects(client.query('INSERT INTO js_tx VALUES ($1, $2)', [1, 'twice']), (error) => {
    assert.equal(error.code, '23505')
    assert.equal(error.constraint, 'js_tx_pkey')
    assert.equal(error.table, 'js_tx')
    assert.equal(error.detail, 'Key (k)=(1) already exists.')
    return true
  })
  await assert.rejects(client.query('SELECT 1'), code('25P02'))
  await client.query('ROLLBACK TO s')
  await client.query('COMMIT')
  const result = await client.query('SELECT * FROM js_tx')
  assert.deepEqual([result.rowCount, result.command, result.rows], [1, 'SELECT', [{ k: 1, v: 'kept' }]])
  const script = await client.query('SELECT 1 AS a; INSERT INTO js_tx VALUES (2, $$b$$); SELECT 3 AS c')
  assert.deepEqual(script.map((r) => r.command), ['SELECT', 'INSERT', 'SELECT'])
  await assert.rejects(client.query('INSERT INTO js_tx VALUES (3)'), (error) => {
    assert.deepEqual([error.code, error.column], ['23502', 'v'])
    return true
  })
  await assert.rejects(client.query('SELECT frm js_tx'), (error) => {
    assert.deepEqual([error.code, error.position], ['42703', '8'])
    return true
  })
}

async function prepared(client) {
  for (let i = 0; i < 5; i += 1) {
    const result = await client.query({ name: 'double', text: 'SELECT $1::int * 2 AS n', values: [i] })
    assert.equal(result.rows[0].n, 2 * i)
  }
  await assert.rejects(client.query({ name: 'bad', text: 'SELECT * FROM nowhere WHERE k = $1', values: [1] }), code('42P01'))
  await assert.rejects(client.query('SELECT $1::int', ['x']), code('22P02'))
  assert.equal((await client.query('SELECT 1 AS n')).rows[0].n, 1)
}

async function pool() {
  const many = new Pool({ connectionString: URL, max: 5 })
  await many.query('CREATE TABLE js_pool (k int PRIMARY KEY)')
  await Promise.all(Array.from({ length: 60 }, (_, k) => many.query('INSERT INTO js_pool VALUES ($1)', [k])))
  const { rows } = await many.query('SELECT count(*)::int AS n, sum(k)::int AS s FROM js_pool')
  assert.deepEqual(rows, [{ n: 60, s: 1770 }])
  const client = await many.connect()
  await client.query('BEGIN')
  await client.query('DELETE FROM js_pool')
  await client.query('ROLLBACK')
  client.release()
  assert.equal((await many.query('SELECT count(*)::int AS n FROM js_pool')).rows[0].n, 60)
  await many.end()
}

async function cancelling() {
  const limited = { statement_timeout: 200, application_name: 'impatient', options: '-c lock_timeout=1s' }
  await withClient(async (client) => {
    assert.equal((await client.query('SHOW lock_timeout')).rows[0].lock_timeout, '1s')
    assert.equal((await client.query('SHOW application_name')).rows[0].application_name, 'impatient')
    await assert.rejects(client.query('SELECT pg_sleep(20)'), code('57014'))
  }, limited)
  await withClient(async (sleeper) => {
    const { rows } = await sleeper.query('SELECT pg_backend_pid() AS pid')
    const asleep = assert.rejects(sleeper.query('SELECT pg_sleep(20)'), code('57014'))
    await withClient(async (other) => {
      for (let done = false; !done; ) {
        const active = "SELECT 1 FROM pg_stat_activity WHERE pid = $1 AND state = 'active' AND query LIKE '%pg_sleep%'"
        done = (await other.query(active, [rows[0].pid])).rowCount === 1
      }
      assert.equal((await other.query('SELECT pg_cancel_backend($1) AS c', [rows[0].pid])).rows[0].c, true)
    })
    await asleep
  })
}

async function notices(client) {
  const heard = []
  client.on('notice', (notice) => heard.push(notice.message))
  await client.query('DROP TABLE IF EXISTS never_was')
  assert.deepEqual(heard, ['table "never_was" does not exist, skipping'])
}

async function keywords() {
  const { PGHOST: host, PGPORT: port, PGUSER: user, PGDATABASE: database, PGPASSWORD: password } = process.env
  const client = new Client({ host, port: Number(port), user, database, password })
  await client.connect()
  assert.equal((await client.query('SELECT current_database() AS d')).rows[0].d, database)
  await client.end()
  const wrong = new Client({ host, port: Number(port), user, database: 'no_such_database', password })
  await assert.rejects(wrong.connect(), code('3D000'))
}

async function main() {
  await step('keywords', keywords)
  for (const [name, run] of Object.entries({ parsed, transactions, prepared, notices })) {
    await step(name, () => withClient(run))
  }
  await step('pool', pool)
  await step('cancelling', cancelling)
  await withClient(everyType)
  process.exitCode = failed > 0 ? 1 : 0
}

main()
