// Knex: schema builder, migrations forth and back, the query builder, transactions.
"use strict";

const assert = require("node:assert/strict");
const knex = require("knex");
const { step, finish } = require("./steps");

const migrations = [
  {
    name: "1_shop",
    async up(db) {
      await db.schema.createTable("customer", (t) => {
        t.increments("id");
        t.string("name", 40).notNullable().index();
        t.string("mail").unique().comment("where letters go");
        t.decimal("balance", 12, 2).defaultTo(0);
        t.date("born");
        t.timestamps(true, true);
        t.uuid("key").defaultTo(db.raw("gen_random_uuid()"));
        t.jsonb("extra").defaultTo("{}");
        t.specificType("tags", "text[]");
        t.boolean("active").notNullable().defaultTo(true);
        t.enu("state", ["new", "old"]).defaultTo("new");
        t.check("?? >= ?", ["balance", -100], "solvent");
        t.comment("who buys");
      });
      await db.schema.createTable("orders", (t) => {
        t.bigIncrements("id");
        t.integer("customer_id").unsigned().notNullable().references("customer.id").onDelete("CASCADE");
        t.string("item").notNullable();
        t.integer("quantity").defaultTo(1);
        t.unique(["customer_id", "item"], { indexName: "orders_once" });
        t.index(["item", "quantity"], "orders_by_item");
      });
    },
    async down(db) {
      await db.schema.dropTable("orders").dropTable("customer");
    },
  },
  {
    name: "2_more",
    async up(db) {
      await db.schema.alterTable("customer", (t) => {
        t.text("note").defaultTo("-");
        t.renameColumn("born", "birthday");
        t.string("name", 80).notNullable().alter();
        t.dropColumn("active");
        t.dropIndex([], "customer_name_index");
        t.setNullable("name");
      });
      await db.schema.createView("good", (v) => {
        v.columns(["name", "worth"]);
        v.as(db("customer").select("name", "balance").where("balance", ">", 1));
      });
      await db.schema.renameTable("orders", "purchase");
    },
    async down(db) {
      await db.schema.renameTable("purchase", "orders").dropView("good");
      await db.schema.alterTable("customer", (t) => {
        t.dropColumn("note");
        t.renameColumn("birthday", "born");
        t.dropNullable("name");
        t.boolean("active").notNullable().defaultTo(true);
        t.index("name");
      });
    },
  },
];

const source = {
  getMigrations: async () => migrations,
  getMigrationName: (migration) => migration.name,
  getMigration: async (migration) => migration,
};

async function main() {
  const db = knex({ client: "pg", connection: process.env.DATABASE_URL, migrations: { migrationSource: source } });

  await step("migrate", async () => {
    const [batch, done] = await db.migrate.latest();
    assert.deepEqual([batch, done], [1, ["1_shop", "2_more"]]);
    assert.deepEqual((await db.migrate.list())[1], []);
    assert.equal(await db.schema.hasTable("customer"), true);
    assert.equal(await db.schema.hasColumn("customer", "birthday"), true);
    assert.equal(await db.schema.hasColumn("customer", "born"), false);
    const info = await db("customer").columnInfo();
    assert.deepEqual(info.name, { type: "character varying", maxLength: 80, nullable: true, defaultValue: null });
    assert.equal(info.balance.defaultValue, "'0'::numeric");
  });

  await step("rows", async () => {
    const [ann, bob] = await db("customer").insert([
      { name: "Ann", mail: "ann@example.org", balance: "12.50", birthday: "1980-02-29", tags: ["a", "b c"], extra: { k: [1] } },
      { name: "Bob", mail: "bob@example.org" },
    ]).returning("*");
    assert.deepEqual([ann.id, ann.balance, ann.tags, ann.extra, bob.balance], [1, "12.50", ["a", "b c"], { k: [1] }, "0.00"]);
    assert.ok(ann.created_at instanceof Date && ann.key.length === 36);
    await db("purchase").insert([{ customer_id: 1, item: "jar", quantity: 3 }, { customer_id: 1, item: "lid" }]);
    const merged = await db("purchase").insert({ customer_id: 1, item: "jar", quantity: 5 })
      .onConflict(["customer_id", "item"]).merge(["quantity"]).returning("quantity");
    assert.deepEqual(merged, [{ quantity: 5 }]);
    await db("purchase").insert({ customer_id: 1, item: "jar" }).onConflict().ignore();
    assert.equal(await db("purchase").where({ item: "jar" }).increment("quantity", 2), 1);
    assert.deepEqual(await db("purchase").where("item", "jar").pluck("quantity"), [7]);
    assert.equal(await db("customer").where("id", 2).update({ note: "x", updated_at: db.fn.now() }), 1);
    await assert.rejects(db("customer").insert({ mail: "bob@example.org" }), { code: "23505", constraint: "customer_mail_unique" });
    await assert.rejects(db("customer").insert({ balance: -101 }), { code: "23514", constraint: "solvent" });
    await db.batchInsert("purchase", Array.from({ length: 90 }, (_, i) => ({ customer_id: 2, item: `i${i}` })), 40);
  });

  await step("queries", async () => {
    const joined = await db("customer as c").leftJoin("purchase as p", "p.customer_id", "c.id").groupBy("c.id")
      .select("c.name").count("p.id as n").max("quantity as most").orderBy("c.name");
    assert.deepEqual(joined, [{ name: "Ann", n: "2", most: 7 }, { name: "Bob", n: "90", most: 1 }]);
    assert.equal((await db("customer").first().whereILike("name", "an%")).name, "Ann");
    const inside = db("purchase").select("customer_id").where("quantity", ">", 2);
    assert.deepEqual(await db("customer").whereIn("id", inside).pluck("name"), ["Ann"]);
    assert.deepEqual(await db("customer").whereExists(db("purchase").whereRaw("customer_id = customer.id").where("item", "i3")).pluck("id"), [2]);
    assert.deepEqual(await db("customer").whereJsonPath("extra", "$.k[0]", "=", 1).pluck("id"), [1]);
    assert.deepEqual(await db("customer").whereJsonSupersetOf("extra", { k: [1] }).pluck("id"), [1]);
    const walk = db.raw("SELECT 1 AS i UNION ALL SELECT i + 1 FROM w WHERE i < ?", [5]);
    assert.deepEqual(await db.withRecursive("w", walk).from("w").sum("i"), [{ sum: "15" }]);
    assert.deepEqual(await db("good").select(), [{ name: "Ann", worth: "12.50" }]);
    const ranked = await db("purchase").select("item").rowNumber("r", (q) => q.partitionBy("customer_id").orderBy("item", "desc"))
      .whereBetween("quantity", [1, 7]).orderBy("item").limit(2).offset(90);
    assert.deepEqual(ranked, [{ item: "jar", r: "2" }, { item: "lid", r: "1" }]);
    const distinct = await db("purchase").distinctOn("customer_id").orderBy(["customer_id", { column: "item", order: "desc" }]).pluck("item");
    assert.deepEqual(distinct, ["lid", "i9"]);
    const intersection = await db("purchase").pluck("customer_id").intersect(db("customer").select("id")).orderBy("customer_id");
    assert.deepEqual(intersection, [1, 2]);
  });

  await step("transactions", async () => {
    await assert.rejects(db.transaction(async (trx) => {
      await trx("purchase").del();
      throw new Error("no");
    }), /no/);
    await db.transaction(async (trx) => {
      await trx("customer").where("id", 1).forUpdate().first();
      await assert.rejects(trx.transaction((inner) => inner("customer").insert({ balance: -1000 })), { code: "23514" });
      const locked = await db("customer").select("id").forUpdate().skipLocked().orderBy("id");
      assert.deepEqual(locked, [{ id: 2 }]);
      await trx("customer").where("id", 2).del();
    }, { isolationLevel: "repeatable read" });
    assert.deepEqual(await db("purchase").count(), [{ count: "2" }]);
  });

  await step("rollback", async () => {
    const [, undone] = await db.migrate.rollback(undefined, true);
    assert.deepEqual(undone, ["2_more", "1_shop"]);
    assert.equal(await db.schema.hasTable("customer"), false);
    await db.schema.dropTable("knex_migrations").dropTable("knex_migrations_lock");
  });
  await db.destroy();
  finish();
}

main();
