// Drizzle over node-postgres: the migrator, the query builder, relational queries, transactions.
"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { Pool } = require("pg");
const { and, count, desc, eq, exists, gt, ilike, inArray, relations, sql, sum } = require("drizzle-orm");
const { drizzle } = require("drizzle-orm/node-postgres");
const { migrate } = require("drizzle-orm/node-postgres/migrator");
const t = require("drizzle-orm/pg-core");
const { step, finish } = require("./steps");

const customer = t.pgTable("customer", {
  id: t.serial("id").primaryKey(),
  name: t.varchar("name", { length: 40 }).notNull(),
  mail: t.text("mail").unique(),
  balance: t.numeric("balance", { precision: 12, scale: 2 }).default("0"),
  big: t.bigint("big", { mode: "bigint" }),
  born: t.date("born"),
  clock: t.time("clock"),
  seen: t.timestamp("seen", { withTimezone: true }).defaultNow(),
  key: t.uuid("key").defaultRandom(),
  extra: t.jsonb("extra"),
  tags: t.text("tags").array(),
  active: t.boolean("active").notNull().default(true),
});
const order = t.pgTable("order", {
  id: t.bigserial("id", { mode: "number" }).primaryKey(),
  customerId: t.integer("customer_id").notNull().references(() => customer.id, { onDelete: "cascade" }),
  item: t.text("item").notNull(),
  quantity: t.integer("quantity").default(1),
});
const customerRelations = relations(customer, ({ many }) => ({ orders: many(order) }));
const orderRelations = relations(order, ({ one }) => ({ customer: one(customer, { fields: [order.customerId], references: [customer.id] }) }));

// What drizzle-kit generates for these tables.
const MIGRATION = `CREATE TABLE "customer" (
	"id" serial PRIMARY KEY NOT NULL,
	"name" varchar(40) NOT NULL,
	"mail" text,
	"balance" numeric(12, 2) DEFAULT '0',
	"big" bigint,
	"born" date,
	"clock" time,
	"seen" timestamp with time zone DEFAULT now(),
	"key" uuid DEFAULT gen_random_uuid(),
	"extra" jsonb,
	"tags" text[],
	"active" boolean DEFAULT true NOT NULL,
	CONSTRAINT "customer_mail_unique" UNIQUE("mail")
);
--> statement-breakpoint
CREATE TABLE "order" (
	"id" bigserial PRIMARY KEY NOT NULL,
	"customer_id" integer NOT NULL,
	"item" text NOT NULL,
	"quantity" integer DEFAULT 1
);
--> statement-breakpoint
ALTER TABLE "order" ADD CONSTRAINT "order_customer_id_customer_id_fk" FOREIGN KEY ("customer_id") REFERENCES "public"."customer"("id") ON DELETE cascade ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "order_item_idx" ON "order" USING btree ("item");`;

async function main() {
  const pool = new Pool({ connectionString: process.env.DATABASE_URL });
  const db = drizzle(pool, { schema: { customer, order, customerRelations, orderRelations } });

  await step("migrate", async () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "drizzle-"));
    fs.mkdirSync(path.join(folder, "meta"));
    fs.writeFileSync(path.join(folder, "0000_shop.sql"), MIGRATION);
    const entries = [{ idx: 0, version: "7", when: 1700000000000, tag: "0000_shop", breakpoints: true }];
    fs.writeFileSync(path.join(folder, "meta/_journal.json"), JSON.stringify({ version: "7", dialect: "postgresql", entries }));
    await migrate(db, { migrationsFolder: folder });
    await migrate(db, { migrationsFolder: folder });
    fs.rmSync(folder, { recursive: true });
  });

  await step("rows", async () => {
    const [ann] = await db.insert(customer).values({ name: "Ann", mail: "a@example.org", balance: "12.5", big: 9007199254740993n, born: "1980-02-29",
      clock: "01:02:03", extra: { k: [1] }, tags: ["a", "b c"] }).returning();
    assert.deepEqual([ann.id, ann.balance, ann.big, ann.born, ann.clock, ann.extra, ann.tags, ann.active],
      [1, "12.50", 9007199254740993n, "1980-02-29", "01:02:03", { k: [1] }, ["a", "b c"], true]);
    assert.ok(ann.seen instanceof Date);
    await db.insert(customer).values([{ name: "Bob" }, { name: "Cid" }]);
    await db.insert(order).values([{ customerId: 1, item: "jar", quantity: 3 }, { customerId: 1, item: "lid" }, { customerId: 2, item: "cup" }]);
    const again = { target: customer.mail, set: { name: sql`excluded.name || '!'` } };
    const [merged] = await db.insert(customer).values({ name: "Anna", mail: "a@example.org" }).onConflictDoUpdate(again).returning({ name: customer.name });
    assert.equal(merged.name, "Anna!");
    await db.insert(customer).values({ name: "x", mail: "a@example.org" }).onConflictDoNothing();
    const changed = await db.update(order).set({ quantity: sql`${order.quantity} + 1` }).where(eq(order.item, "jar")).returning({ n: order.quantity });
    assert.deepEqual(changed, [{ n: 4 }]);
    assert.deepEqual(await db.delete(order).where(eq(order.item, "cup")).returning({ id: order.id }), [{ id: 3 }]);
  });

  await step("queries", async () => {
    const joined = await db.select({ name: customer.name, n: count(order.id), s: sum(order.quantity) }).from(customer)
      .leftJoin(order, eq(order.customerId, customer.id)).groupBy(customer.id).orderBy(customer.id);
    assert.deepEqual(joined, [{ name: "Anna!", n: 2, s: "5" }, { name: "Bob", n: 0, s: null }, { name: "Cid", n: 0, s: null }]);
    const related = await db.query.customer.findMany({ with: { orders: { orderBy: [desc(order.id)], limit: 1 } }, where: inArray(customer.id, [1, 2]), orderBy: [customer.id],
      columns: { name: true }, extras: { loud: sql`upper(${customer.name})`.as("loud") } });
    assert.deepEqual(related.map((c) => [c.loud, c.orders.map((o) => o.item)]), [["ANNA!", ["lid"]], ["BOB", []]]);
    const one = await db.query.order.findFirst({ with: { customer: true }, where: eq(order.item, "jar") });
    assert.deepEqual([one.customer.name, one.customer.extra, one.quantity], ["Anna!", { k: [1] }, 4]);
    const some = db.select().from(order).where(and(eq(order.customerId, customer.id), gt(order.quantity, 2)));
    assert.deepEqual(await db.select({ id: customer.id }).from(customer).where(and(exists(some), ilike(customer.name, "a%"))), [{ id: 1 }]);
    const totals = db.$with("totals").as(db.select({ id: order.customerId, n: sql`sum(${order.quantity})::int`.as("n") }).from(order).groupBy(order.customerId));
    assert.deepEqual(await db.with(totals).select().from(totals), [{ id: 1, n: 5 }]);
    const prepared = db.select({ name: customer.name }).from(customer).where(eq(customer.id, sql.placeholder("id"))).prepare("by_id");
    assert.deepEqual([await prepared.execute({ id: 2 }), await prepared.execute({ id: 3 })], [[{ name: "Bob" }], [{ name: "Cid" }]]);
    const both = await t.unionAll(db.select({ x: customer.name }).from(customer), db.select({ x: order.item }).from(order)).orderBy(sql`1`).limit(2);
    assert.deepEqual(both, [{ x: "Anna!" }, { x: "Bob" }]);
    assert.equal(await db.$count(order), 2);
  });

  await step("transactions", async () => {
    await assert.rejects(db.transaction(async (tx) => {
      await tx.delete(order);
      tx.rollback();
    }), /Rollback/);
    await db.transaction(async (tx) => {
      await tx.select().from(customer).where(eq(customer.id, 1)).for("update");
      assert.deepEqual((await db.select({ id: customer.id }).from(customer).for("update", { skipLocked: true }).orderBy(customer.id)).map((r) => r.id), [2, 3]);
      await tx.transaction(async (inner) => inner.insert(customer).values({ name: "x", mail: "a@example.org" })).catch((e) => assert.equal((e.cause ?? e).code, "23505"));
      await tx.delete(customer).where(eq(customer.id, 1));
    }, { isolationLevel: "repeatable read", accessMode: "read write" });
    assert.equal(await db.$count(order), 0);
    await db.execute(sql`DROP TABLE ${order}, ${customer}`);
    await db.execute(sql`DROP SCHEMA drizzle CASCADE`);
  });
  await pool.end();
  finish();
}

main();
