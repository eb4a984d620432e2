# ActiveRecord as Rails uses it: migrations, the schema dumped and loaded, models, relations, transactions.
require "active_record"
require "stringio"

ActiveRecord::Base.establish_connection(ENV.fetch("DATABASE_URL"))
ActiveRecord::Base.default_timezone = :utc
ActiveRecord::Migration.verbose = false

$failed = []

def step(name)
  yield
  puts "ok #{name}"
rescue Exception => e # a failed assertion is one step's failure
  $failed << name
  puts "FAILED #{name}", e.full_message(highlight: false)
end

def check(expected, actual)
  raise "expected #{expected.inspect}, got #{actual.inspect}" unless expected == actual
end

def raises(kind, pattern = //)
  yield
rescue kind => e
  raise "#{e.message} does not match #{pattern}" unless pattern.match?(e.message)
else
  raise "#{kind} was not raised"
end

class CreateShop < ActiveRecord::Migration[6.1]
  def change
    create_table :customers, comment: "who buys" do |t|
      t.string :name, limit: 40, null: false, comment: "on letters"
      t.string :mail, index: { unique: true }
      t.decimal :balance, precision: 12, scale: 2, default: 0
      t.bigint :big
      t.float :ratio
      t.date :born
      t.time :clock
      t.datetime :seen
      t.uuid :key, default: "gen_random_uuid()"
      t.jsonb :extra, default: {}
      t.json :plain
      t.text :note
      t.string :tags, array: true, default: []
      t.binary :blob
      t.boolean :active, null: false, default: true
      t.interval :lasts
      t.integer :orders_count, default: 0
      t.timestamps
      t.check_constraint "balance >= -100", name: "solvent"
    end
    add_index :customers, %i[name born], name: "customers_by_name"
    create_table :orders do |t|
      t.references :customer, null: false, foreign_key: { on_delete: :cascade }
      t.text :item, null: false
      t.integer :quantity, default: 1
      t.integer :state, limit: 2, default: 0
      t.integer :lock_version, default: 0
    end
    add_index :orders, %i[customer_id item], unique: true
    create_table(:clubs, id: false) { |t| t.string :name, primary_key: true }
    create_join_table :customers, :orders, table_name: "favourites"
  end
end

class ChangeShop < ActiveRecord::Migration[6.1]
  def up
    add_column :orders, :remark, :string, default: "-", null: false
    rename_column :orders, :remark, :note
    change_column :orders, :note, :text
    change_column_null :orders, :note, true
    change_column_default :orders, :note, from: "-", to: nil
    rename_index :orders, "index_orders_on_customer_id_and_item", "orders_once"
    add_reference :clubs, :founder, foreign_key: { to_table: :customers }
    change_table_comment :orders, "what is bought"
    rename_table :clubs, :societies
  end

  def down
    rename_table :societies, :clubs
    remove_reference :clubs, :founder, foreign_key: { to_table: :customers }
    rename_index :orders, "orders_once", "index_orders_on_customer_id_and_item"
    remove_column :orders, :note
  end
end

class Customer < ActiveRecord::Base
  has_many :orders
  validates :name, presence: true
  scope :rich, -> { where("balance > ?", 5) }
end

class Order < ActiveRecord::Base
  belongs_to :customer, counter_cache: true
  enum state: { open: 0, paid: 1 }
end

step "migrations" do
  migrations = [[1, CreateShop], [2, ChangeShop]]
  migrator = lambda do |direction, target = nil|
    proxies = migrations.map { |version, migration| migration.new(migration.name, version) }
    ActiveRecord::Migrator.new(direction, proxies, ActiveRecord::SchemaMigration, target).migrate
  end
  migrator.call(:up)
  migrator.call(:down, 1)
  migrator.call(:down)
  check [], ActiveRecord::Base.connection.tables.grep(/customers|orders|clubs/)
  migrator.call(:up)
  check %w[1 2], ActiveRecord::Base.connection.select_values("SELECT version FROM schema_migrations ORDER BY 1")
end

step "rows" do
  ann = Customer.create!(
    name: "Ann", mail: "ann@example.org", balance: "12.50", big: 2**62, ratio: 0.1, born: Date.new(1980, 2, 29),
    clock: "01:02:03", seen: Time.utc(2024, 1, 2, 3, 4, 5, 678_900), extra: { "k" => [1] }, plain: [1], note: "ü",
    tags: ["a", "b c"], blob: "\0\xFF".b, lasts: 36.hours
  )
  read = Customer.find(ann.id)
  check [BigDecimal("12.5"), 2**62, 0.1, Date.new(1980, 2, 29), { "k" => [1] }, [1], "ü", ["a", "b c"], "\0\xFF".b, true],
        [read.balance, read.big, read.ratio, read.born, read.extra, read.plain, read.note, read.tags, read.blob, read.active]
  check [Time.utc(2024, 1, 2, 3, 4, 5, 678_900), "01:02:03", 36, 36],
        [read.seen, read.clock.strftime("%H:%M:%S"), read.key.length, read.lasts.in_hours.to_i]
  ann.orders.create!([{ item: "jar", quantity: 3 }, { item: "lid", state: :paid }])
  check [2, %w[lid], 4], [ann.reload.orders_count, ann.orders.paid.pluck(:item), ann.orders.sum(:quantity)]
  result = Customer.insert_all!([{ name: "Bob", created_at: Time.now, updated_at: Time.now }, { name: "Cid", created_at: Time.now, updated_at: Time.now }], returning: %w[id name])
  check [[2, "Bob"], [3, "Cid"]], result.rows
  Order.upsert_all([{ customer_id: 1, item: "jar", quantity: 9 }], unique_by: %i[customer_id item])
  check 9, Order.find_by!(item: "jar").quantity
  Order.insert_all([{ customer_id: 1, item: "jar" }])
  check 1, Customer.where(name: "Bob").update_all(balance: 7)
  Customer.find_or_create_by!(name: "Bob") { raise "there is one" }
  Customer.increment_counter(:orders_count, 3)
  raises(ActiveRecord::RecordNotUnique, /index_customers_on_mail/) { Customer.create!(name: "x", mail: "ann@example.org") }
  raises(ActiveRecord::NotNullViolation) { Customer.new.save!(validate: false) }
  raises(ActiveRecord::InvalidForeignKey) { Order.insert_all!([{ customer_id: 99, item: "x" }]) }
  raises(ActiveRecord::StatementInvalid, /solvent/) { Customer.update_all(balance: -1000) }
  raises(ActiveRecord::ValueTooLong) { Customer.where(id: 1).update_all(name: "x" * 41) }
  one, other = Order.find_by!(item: "lid"), Order.find_by!(item: "lid")
  one.update!(quantity: 2)
  raises(ActiveRecord::StaleObjectError) { other.update!(quantity: 3) }
end

step "queries" do
  check %w[Ann Bob], Customer.rich.order(:name).pluck(:name)
  check({ "Ann" => 2 }, Customer.joins(:orders).group(:name).count)
  check({ nil => 2, 1980 => 1 }, Customer.group("extract(year FROM born)::int").count)
  check [["Ann", 2], ["Bob", 0], ["Cid", 0]], Customer.left_joins(:orders).group(:id).order(:id).pluck(:name, Arel.sql("count(orders.id)"))
  people = Customer.includes(:orders).order(name: :desc).to_a
  check [0, 0, 2], people.map { |c| c.orders.size }
  check %w[Ann], Customer.eager_load(:orders).where(orders: { quantity: 2..3 }).map(&:name)
  check %w[Ann], Customer.where("extra @> ?", { k: [1] }.to_json).or(Customer.where(name: %w[x y])).pluck(:name)
  check %w[Bob Cid], Customer.where.not(id: Order.select(:customer_id)).order(:id).pluck(:name)
  check %w[Ann], Customer.where("? = ANY (tags)", "a").pluck(:name)
  check [true, false], [Customer.exists?(name: "Ann"), Customer.exists?(name: "Zoe")]
  check [BigDecimal("19.5"), 3, "Cid"], [Customer.sum(:balance), Customer.count, Customer.maximum(:name)]
  check %w[Bob], Customer.order(:id).limit(1).offset(1).pluck(:name)
  check 3, Customer.find_each(batch_size: 2).count
  check %w[Ann], Customer.find_by_sql(["SELECT * FROM customers WHERE name = ?", "Ann"]).map(&:name)
  check "Ann", Customer.find_by("name = :name", name: "Ann").name
  check [1], Order.distinct.pluck(:customer_id)
  raise "no plan" unless Customer.where(id: 1).explain.include?("Scan")
end

step "transactions" do
  Customer.transaction do
    Order.delete_all
    raise ActiveRecord::Rollback
  end
  check 2, Order.count
  Customer.transaction(isolation: :repeatable_read) do
    Customer.lock.find(1)
    free = Thread.new { ActiveRecord::Base.connection_pool.with_connection { Customer.transaction { Customer.lock("FOR UPDATE SKIP LOCKED").order(:id).pluck(:id) } } }
    check [2, 3], free.value
    begin
      Customer.transaction(requires_new: true) { Customer.create!(name: "x", mail: "ann@example.org") }
    rescue ActiveRecord::RecordNotUnique
      Customer.find(3).destroy!
    end
  end
  check [1, 2], Customer.order(:id).ids
  Customer.connection.execute("SET lock_timeout = '100ms'")
  Customer.transaction do
    Thread.new { ActiveRecord::Base.connection_pool.with_connection { raises(ActiveRecord::LockWaitTimeout) { Customer.transaction { Customer.lock("FOR UPDATE NOWAIT").find(1) } } } }.join if Customer.lock.find(1)
  end
end

step "schema" do
  out = StringIO.new
  ActiveRecord::SchemaDumper.dump(ActiveRecord::Base.connection, out)
  dumped = out.string
  [
    'create_table "customers", comment: "who buys", force: :cascade do |t|',
    't.string "name", limit: 40, null: false, comment: "on letters"',
    't.decimal "balance", precision: 12, scale: 2, default: "0.0"',
    't.uuid "key", default: -> { "gen_random_uuid()" }',
    't.jsonb "extra", default: {}',
    't.string "tags", default: [], array: true',
    't.index ["name", "born"], name: "customers_by_name"',
    't.index ["customer_id", "item"], name: "orders_once", unique: true',
    't.check_constraint "balance >= ',
    'add_foreign_key "orders", "customers", on_delete: :cascade',
    'create_table "societies", primary_key: "name", id: :string, force: :cascade do |t|',
  ].each { |line| raise "#{line} is not in\n#{dumped}" unless dumped.include?(line) }
  ActiveRecord::Schema.verbose = false
  eval(dumped.sub("ActiveRecord::Schema.define", "ActiveRecord::Schema.define"))
  again = StringIO.new
  ActiveRecord::SchemaDumper.dump(ActiveRecord::Base.connection, again)
  check dumped, again.string
  connection = ActiveRecord::Base.connection
  check "id", connection.primary_key("customers")
  check ["customers_id_seq"], [connection.pk_and_sequence_for("customers")[1].identifier]
  connection.create_table(:spare)
  connection.reset_pk_sequence!("spare")
  connection.disable_referential_integrity { connection.truncate_tables("customers", "orders", "spare") } rescue connection.truncate("spare")
  connection.add_index(:orders, :quantity, algorithm: :concurrently)
  raise "no index" unless connection.index_exists?(:orders, :quantity)
  %w[favourites societies orders customers spare schema_migrations ar_internal_metadata].each { |t| connection.drop_table(t, if_exists: true, force: :cascade) }
  check [], connection.tables
end

puts "failed: #{$failed.join(', ')}" unless $failed.empty?
exit($failed.empty?)
