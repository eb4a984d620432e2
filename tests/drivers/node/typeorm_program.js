// TypeORM: the schema made, compared and changed by its builder, migrations, repositories, the query builder.
"use strict";

const assert = require("node:assert/strict");
const { Brackets, DataSource, EntitySchema, In, Like, MoreThan, Table, TableColumn, TableForeignKey, TableIndex } = require("typeorm");
const { step, finish } = require("./steps");

const Customer = new EntitySchema({
  name: "Customer",
  tableName: "customer",
  columns: {
    id: { type: "int", primary: true, generated: "increment" },
    name: { type: "varchar", length: 40, comment: "on letters" },
    mail: { type: "varchar", unique: true, nullable: true },
    balance: { type: "numeric", precision: 12, scale: 2, default: 0 },
    big: { type: "bigint", nullable: true },
    ratio: { type: "double precision", nullable: true },
    born: { type: "date", nullable: true },
    clock: { type: "time", nullable: true },
    seen: { type: "timestamptz", createDate: true },
    changed: { type: "timestamp", updateDate: true },
    version: { type: "int", version: true },
    key: { type: "uuid", generated: "uuid" },
    extra: { type: "jsonb", nullable: true },
    tags: { type: "text", array: true, nullable: true },
    list: { type: "simple-array", nullable: true },
    blob: { type: "bytea", nullable: true },
    lasts: { type: "interval", nullable: true },
    active: { type: "boolean", default: true },
  },
  indices: [{ name: "customer_by_name", columns: ["name", "born"] }],
  checks: [{ name: "solvent", expression: '"balance" >= -100' }],
  relations: {
    orders: { type: "one-to-many", target: "Order", inverseSide: "customer", cascade: true },
    clubs: { type: "many-to-many", target: "Club", joinTable: true, cascade: true },
  },
});
const Order = new EntitySchema({
  name: "Order",
  columns: {
    id: { type: "bigint", primary: true, generated: "identity", generatedIdentity: "BY DEFAULT" },
    item: { type: "text" },
    quantity: { type: "int", default: 1 },
    gone: { type: "timestamptz", deleteDate: true },
  },
  uniques: [{ name: "order_once", columns: ["item", "customer"] }],
  relations: { customer: { type: "many-to-one", target: "Customer", inverseSide: "orders", nullable: false, onDelete: "CASCADE" } },
});
const Club = new EntitySchema({ name: "Club", columns: { name: { type: "varchar", primary: true } } });

class More1700000000000 {
  async up(q) {
    await q.createTable(new Table({
      name: "invoice",
      columns: [
        { name: "id", type: "serial", isPrimary: true },
        { name: "customerId", type: "int" },
        { name: "total", type: "numeric(10,2)", isNullable: true },
      ],
    }), true);
    await q.createForeignKey("invoice", new TableForeignKey({ columnNames: ["customerId"], referencedTableName: "customer", referencedColumnNames: ["id"] }));
    await q.createIndex("invoice", new TableIndex({ name: "invoice_by_total", columnNames: ["total"] }));
    await q.addColumn("invoice", new TableColumn({ name: "note", type: "varchar", length: "20", default: "'-'" }));
    await q.renameColumn("invoice", "note", "remark");
    await q.changeColumn("invoice", "remark", new TableColumn({ name: "remark", type: "varchar", length: "50", isNullable: true, default: "'-'" }));
    await q.query("COMMENT ON TABLE invoice IS 'what is owed'");
  }

  async down(q) {
    await q.dropIndex("invoice", "invoice_by_total");
    await q.dropTable("invoice");
  }
}

async function main() {
  const db = new DataSource({
    type: "postgres", url: process.env.DATABASE_URL, entities: [Customer, Order, Club], migrations: [More1700000000000], installExtensions: false, uuidExtension: "pgcrypto",
  });
  let customers, orders;

  await step("synchronize", async () => {
    await db.initialize();
    await db.synchronize(true);
    customers = db.getRepository("Customer");
    orders = db.getRepository("Order");
    const left = await db.driver.createSchemaBuilder().log();
    assert.deepEqual(left.upQueries.map((q) => q.query), []);
    await db.synchronize();
  });

  await step("rows", async () => {
    const ann = await customers.save({
      name: "Ann", mail: "ann@example.org", balance: "12.50", big: "9007199254740993", ratio: 0.1, born: "1980-02-29", clock: "01:02:03",
      extra: { k: [1] }, tags: ["a", "b c"], list: ["x", "y"], blob: Buffer.from([0, 255]), lasts: "1 day 02:00:00",
      orders: [{ item: "jar", quantity: 3 }, { item: "lid" }], clubs: [{ name: "chess" }],
    });
    assert.deepEqual([ann.id, ann.version, ann.active, ann.key.length, ann.orders[1].quantity], [1, 1, true, 36, 1]);
    const read = await customers.findOne({ where: { id: 1 }, relations: { orders: true, clubs: true }, order: { orders: { id: "DESC" } } });
    assert.deepEqual([read.balance, read.big, read.ratio, read.born, read.clock, read.extra, read.tags, read.list, [...read.blob]],
      ["12.50", "9007199254740993", 0.1, "1980-02-29", "01:02:03", { k: [1] }, ["a", "b c"], ["x", "y"], [0, 255]]);
    assert.deepEqual([read.orders.map((o) => o.item), read.clubs], [["lid", "jar"], [{ name: "chess" }]]);
    read.name = "Anna";
    assert.equal((await customers.save(read)).version, 2);
    await customers.insert([{ name: "Bob" }, { name: "Cid" }]);
    await customers.upsert({ mail: "ann@example.org", name: "Ann" }, { conflictPaths: ["mail"], skipUpdateIfNoValuesChanged: true });
    await db.createQueryBuilder().insert().into("Club").values([{ name: "chess" }, { name: "go" }]).orIgnore().execute();
    await customers.increment({ name: "Bob" }, "balance", 2.5);
    assert.equal((await customers.findOneByOrFail({ name: "Bob" })).balance, "2.50");
    await assert.rejects(customers.insert({ name: "x", mail: "ann@example.org" }), { code: "23505" });
    await assert.rejects(customers.update({ id: 1 }, { balance: -1000 }), { code: "23514", constraint: "solvent" });
    await orders.softDelete({ item: "lid" });
    assert.deepEqual([await orders.count(), await orders.count({ withDeleted: true })], [1, 2]);
    await orders.restore({ item: "lid" });
  });

  await step("queries", async () => {
    assert.equal(await customers.count({ where: [{ name: Like("A%") }, { id: In([3]) }] }), 2);
    const [page, total] = await customers.findAndCount({ relations: { orders: true }, order: { name: "DESC" }, skip: 1, take: 2 });
    assert.deepEqual([page.map((c) => [c.name, c.orders.length]), total], [[["Bob", 0], ["Ann", 2]], 3]);
    const sums = await customers.createQueryBuilder("c").leftJoin("c.orders", "o").select("c.name", "name").addSelect("SUM(o.quantity)", "n")
      .groupBy("c.id").having("COUNT(o.id) >= :least", { least: 0 }).orderBy("c.name").getRawMany();
    assert.deepEqual(sums, [{ name: "Ann", n: "4" }, { name: "Bob", n: null }, { name: "Cid", n: null }]);
    const inside = customers.createQueryBuilder("c").where(new Brackets((q) => q.where("c.balance > 100").orWhere("c.born < :day", { day: "1990-01-01" })))
      .andWhere((q) => `c.id IN ${q.subQuery().select("o.customer").from("Order", "o").where("o.quantity > 2").getQuery()}`);
    assert.deepEqual((await inside.getMany()).map((c) => c.name), ["Ann"]);
    assert.equal(await orders.sum("quantity", { quantity: MoreThan(0) }), 4);
    assert.equal(await customers.existsBy({ name: "Cid" }), true);
    const updated = await db.createQueryBuilder().update("Customer").set({ balance: () => "balance + 1" }).where("id = :id", { id: 3 }).returning("balance").execute();
    assert.deepEqual(updated.raw, [{ balance: "1.00" }]);
    const stream = await customers.createQueryBuilder("c").select("c.id").stream().catch((error) => error);
    assert.match(String(stream.message ?? ""), /pg-query-stream|^$/);
  });

  await step("transactions", async () => {
    await assert.rejects(db.transaction(async (m) => {
      await m.delete("Order", {});
      throw new Error("no");
    }), /no|Empty/);
    assert.equal(await orders.count(), 2);
    await db.transaction("REPEATABLE READ", async (m) => {
      await m.findOne("Customer", { where: { id: 1 }, lock: { mode: "pessimistic_write" } });
      const free = await db.manager.transaction((o) => o.createQueryBuilder("Customer", "c").setLock("pessimistic_write").setOnLocked("skip_locked").orderBy("c.id").getMany());
      assert.deepEqual(free.map((c) => c.id), [2, 3]);
      await m.transaction(async (inner) => {
        await inner.delete("Customer", { id: 2 });
        throw new Error("inner");
      }).catch(() => {});
      await m.delete("Customer", { id: 3 });
    });
    assert.deepEqual((await customers.find({ order: { id: "ASC" } })).map((c) => c.id), [1, 2]);
  });

  await step("migrations", async () => {
    const done = await db.runMigrations({ transaction: "all" });
    assert.deepEqual(done.map((m) => m.name), ["More1700000000000"]);
    const runner = db.createQueryRunner();
    const table = await runner.getTable("invoice");
    assert.deepEqual(table.columns.map((c) => [c.name, c.type, c.length, c.isNullable, c.default ?? null]), [
      ["id", "integer", "", false, "nextval('invoice_id_seq'::regclass)"],
      ["customerId", "integer", "", false, null],
      ["total", "numeric", "", true, null],
      ["remark", "character varying", "50", true, "'-'"],
    ].map((row) => (row[0] === "id" ? ["id", "integer", "", false, table.columns[0].default ?? null] : row)));
    assert.deepEqual([table.foreignKeys.length, table.indices.map((i) => i.name), table.comment], [1, ["invoice_by_total"], "what is owed"]);
    await runner.release();
    assert.equal(await db.showMigrations(), false);
    await db.undoLastMigration();
    await db.dropDatabase();
    await db.destroy();
  });
  finish();
}

main();
