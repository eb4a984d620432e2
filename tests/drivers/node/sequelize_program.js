// Sequelize: sync (also by altering), associations, finders, transactions, the query interface.
"use strict";

const assert = require("node:assert/strict");
const { DataTypes, Deferrable, Op, Sequelize, Transaction, fn, col, literal } = require("sequelize");
const { step, finish } = require("./steps");

async function main() {
  const db = new Sequelize(process.env.DATABASE_URL, { logging: false });
  const Customer = db.define("customer", {
    name: { type: DataTypes.STRING(40), allowNull: false, comment: "on letters" },
    mail: { type: DataTypes.STRING, unique: true },
    balance: { type: DataTypes.DECIMAL(12, 2), defaultValue: 0 },
    big: DataTypes.BIGINT,
    ratio: DataTypes.DOUBLE,
    born: DataTypes.DATEONLY,
    clock: DataTypes.TIME,
    seen: { type: DataTypes.DATE, defaultValue: DataTypes.NOW },
    key: { type: DataTypes.UUID, defaultValue: DataTypes.UUIDV4 },
    extra: DataTypes.JSONB,
    plain: DataTypes.JSON,
    tags: DataTypes.ARRAY(DataTypes.TEXT),
    blob: DataTypes.BLOB,
    active: { type: DataTypes.BOOLEAN, allowNull: false, defaultValue: true },
  }, { indexes: [{ fields: ["name", "born"] }, { unique: true, fields: ["key"] }], paranoid: true });
  const Order = db.define("order", {
    id: { type: DataTypes.BIGINT, primaryKey: true, autoIncrement: true },
    item: { type: DataTypes.TEXT, allowNull: false },
    quantity: { type: DataTypes.INTEGER, defaultValue: 1 },
  }, { timestamps: false });
  const Club = db.define("club", { name: { type: DataTypes.STRING, primaryKey: true } }, { timestamps: false });
  Customer.hasMany(Order, { foreignKey: { allowNull: false }, onDelete: "CASCADE" });
  Order.belongsTo(Customer);
  Customer.belongsToMany(Club, { through: "membership" });
  Club.belongsToMany(Customer, { through: "membership" });

  await step("sync", async () => {
    await db.authenticate();
    await db.sync({ force: true });
    await db.sync();
    await db.sync({ alter: true });
    assert.ok((await db.getQueryInterface().showAllTables()).includes("customers"));
    const columns = await db.getQueryInterface().describeTable("customers");
    assert.deepEqual([columns.name.type, columns.name.allowNull, columns.name.comment], ["CHARACTER VARYING(40)", false, "on letters"]);
    assert.equal(columns.id.primaryKey, true);
    assert.equal(columns.id.defaultValue, "nextval(customers_id_seq::regclass)");
    const indexes = await db.getQueryInterface().showIndex("customers");
    assert.deepEqual(indexes.find((i) => i.name === "customers_name_born").fields.map((f) => f.attribute), ["name", "born"]);
    const keys = await db.getQueryInterface().getForeignKeyReferencesForTable("orders");
    assert.deepEqual(keys.map((k) => [k.columnName, k.referencedTableName]), [["customerId", "customers"]]);
  });

  await step("rows", async () => {
    const ann = await Customer.create({
      name: "Ann", mail: "ann@example.org", balance: "12.50", big: "9007199254740993", ratio: 0.1, born: "1980-02-29", clock: "01:02:03",
      extra: { k: [1, { x: null }] }, plain: [1], tags: ["a", "b c"], blob: Buffer.from([0, 255]), orders: [{ item: "jar", quantity: 3 }, { item: "lid" }],
    }, { include: [Order] });
    // Its orders were inserted side by side, over two connections: either may have the smaller id.
    const read = await Customer.findByPk(ann.id, { include: [{ model: Order, separate: false }], order: [[Order, "item", "DESC"]] });
    assert.deepEqual([read.balance, read.big, read.ratio, read.born, read.clock, read.extra, read.plain, read.tags, [...read.blob], read.active],
      ["12.50", "9007199254740993", 0.1, "1980-02-29", "01:02:03", { k: [1, { x: null }] }, [1], ["a", "b c"], [0, 255], true]);
    assert.equal(read.key, ann.key);
    assert.deepEqual(read.orders.map((o) => o.item), ["lid", "jar"]);
    // findOrCreate makes a function in PL/pgSQL; this one does not.
    const [chess] = await Club.findCreateFind({ where: { name: "chess" } });
    await read.addClub(chess);
    assert.deepEqual((await chess.getCustomers()).map((c) => c.name), ["Ann"]);
    const many = await Customer.bulkCreate([{ name: "Bob" }, { name: "Cid" }, { name: "Dan" }], { returning: true });
    assert.deepEqual(many.map((c) => c.id), [2, 3, 4]);
    await Customer.bulkCreate([{ id: 2, name: "Rob", balance: 7 }], { updateOnDuplicate: ["name", "balance"], conflictAttributes: ["id"] });
    await Club.bulkCreate([{ name: "chess" }, { name: "go" }], { ignoreDuplicates: true });
    const [, created] = await Customer.upsert({ mail: "ann@example.org", name: "Anna" });
    assert.equal(created, null);
    const [count, [changed]] = await Customer.update({ ratio: 2 }, { where: { name: "Rob" }, returning: true });
    assert.deepEqual([count, changed.ratio, changed.balance], [1, 2, "7.00"]);
    await Order.increment("quantity", { by: 4, where: { item: "jar" } });
    assert.equal((await Order.findOne({ where: { item: "jar" } })).quantity, 7);
    await assert.rejects(Customer.create({ name: "x", mail: "ann@example.org" }), { name: "SequelizeUniqueConstraintError" });
    await assert.rejects(Order.create({ item: "x", customerId: 99 }), { name: "SequelizeForeignKeyConstraintError" });
    await (await Customer.findByPk(4)).destroy();
    assert.equal(await Customer.count(), 3);
    assert.equal(await Customer.count({ paranoid: false }), 4);
  });

  await step("queries", async () => {
    const where = [
      { name: { [Op.iLike]: "ann%" } }, { name: { [Op.regexp]: "^A" } }, { tags: { [Op.contains]: ["a"] } }, { tags: { [Op.overlap]: ["a", "z"] } },
      { extra: { k: { [Op.ne]: null } } }, { born: { [Op.between]: ["1970-01-01", "1990-01-01"] } }, { [Op.or]: [{ name: "Anna" }, { id: 77 }] },
      { extra: { [Op.contains]: { k: [1] } } }, { id: { [Op.in]: [1, 9] } }, literal("ratio < 1"),
    ];
    for (const condition of where) assert.equal(await Customer.count({ where: condition }), 1, condition);
    const totals = await Customer.findAll({
      attributes: ["name", [fn("COUNT", col("orders.id")), "n"]], include: [{ model: Order, attributes: [] }], group: ["customer.id"], order: ["name"], raw: true,
    });
    assert.deepEqual(totals, [{ name: "Anna", n: "2" }, { name: "Cid", n: "0" }, { name: "Rob", n: "0" }]);
    const { rows, count } = await Customer.findAndCountAll({ include: [Order, Club], limit: 2, offset: 1, order: [["name", "DESC"]], distinct: true });
    assert.deepEqual([count, rows.map((r) => r.name)], [3, ["Cid", "Anna"]]);
    assert.deepEqual(rows[1].clubs.map((c) => c.name), ["chess"]);
    assert.deepEqual([await Order.sum("quantity"), await Order.max("item"), await Customer.min("name")], [8, "lid", "Anna"]);
    const [raw] = await db.query("SELECT :a::int + $b AS x".replace("$b", ":b"), { replacements: { a: 1, b: 2 } });
    assert.deepEqual(raw, [{ x: 3 }]);
    const [bound] = await db.query("SELECT $1::text AS t, $two::int AS n".replace("$1", "$one"), { bind: { one: "x", two: 2 } });
    assert.deepEqual(bound, [{ t: "x", n: 2 }]);
  });

  await step("transactions", async () => {
    await assert.rejects(db.transaction(async (transaction) => {
      await Order.destroy({ where: {}, transaction });
      throw new Error("no");
    }), /no/);
    assert.equal(await Order.count(), 2);
    await db.transaction({ isolationLevel: Transaction.ISOLATION_LEVELS.REPEATABLE_READ }, async (transaction) => {
      const ann = await Customer.findOne({ where: { name: "Anna" }, lock: transaction.LOCK.UPDATE, transaction });
      const free = await db.transaction((other) => Customer.findAll({ lock: true, skipLocked: true, order: ["id"], transaction: other }));
      assert.deepEqual(free.map((c) => c.name), ["Rob", "Cid"]);
      await db.transaction({ transaction }, async (inner) => ann.update({ name: "A" }, { transaction: inner }));
    });
    assert.equal((await Customer.findByPk(1)).name, "A");
  });

  await step("query interface", async () => {
    const change = db.getQueryInterface();
    await change.addColumn("orders", "note", { type: DataTypes.STRING, defaultValue: "-" });
    await change.changeColumn("orders", "note", { type: DataTypes.TEXT, allowNull: false });
    await change.renameColumn("orders", "note", "remark");
    await change.addIndex("orders", ["item", "remark"], { name: "orders_by_item", concurrently: true });
    await change.addConstraint("orders", { type: "check", fields: ["quantity"], where: { quantity: { [Op.gt]: 0 } }, name: "some" });
    await change.addConstraint("orders", { type: "unique", fields: ["item", "customerId"], name: "once", deferrable: Deferrable.NOT });
    await assert.rejects(Order.update({ quantity: 0 }, { where: {} }), /some/);
    await change.removeConstraint("orders", "some");
    await change.removeIndex("orders", "orders_by_item");
    await change.removeColumn("orders", "remark");
    await change.renameTable("orders", "purchases");
    await change.renameTable("purchases", "orders");
    await db.drop();
    assert.deepEqual(await change.showAllTables(), []);
  });
  await db.close();
  finish();
}

main();
