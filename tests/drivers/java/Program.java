// JDBC: prepared statements, batches, fetch sizes, savepoints, metadata, COPY, cancelling, every type.

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.sql.*;
import java.time.*;
import java.util.*;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;
import org.postgresql.util.PGInterval;
import org.postgresql.util.PGobject;

public class Program {
    interface Step {
        void run(Connection connection) throws Exception;
    }

    static final List<String> failed = new ArrayList<>();

    static Connection connect(String... options) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", System.getenv("PGUSER"));
        properties.setProperty("password", System.getenv("PGPASSWORD"));
        for (int i = 0; i < options.length; i += 2) {
            properties.setProperty(options[i], options[i + 1]);
        }
        return DriverManager.getConnection(url(), properties);
    }

    static String url() {
        return "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE");
    }

    static void step(String name, Step step, String... options) {
        try (Connection connection = connect(options)) {
            step.run(connection);
            System.out.println("ok " + name);
        } catch (Throwable error) {
            failed.add(name);
            StringWriter trace = new StringWriter();
            error.printStackTrace(new PrintWriter(trace));
            System.out.println("FAILED " + name + ": " + trace);
        }
    }

    static void same(Object expected, Object actual, String what) {
        boolean equal = expected instanceof byte[] a && actual instanceof byte[] b ? Arrays.equals(a, b)
            : expected instanceof Object[] a && actual instanceof Object[] b ? Arrays.deepEquals(a, b)
            : Objects.equals(expected, actual);
        if (!equal) {
            throw new AssertionError(what + ": expected " + shown(expected) + ", got " + shown(actual));
        }
    }

    static String shown(Object value) {
        return value instanceof Object[] a ? Arrays.deepToString(a) : value + (value == null ? "" : " " + value.getClass());
    }

    static void fails(String state, Callable action) throws Exception {
        try {
            action.run();
        } catch (SQLException error) {
            same(state, error.getSQLState(), error.getMessage());
            return;
        }
        throw new AssertionError("accepted; " + state + " was expected");
    }

    interface Callable {
        void run() throws Exception;
    }

    static void execute(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(sql);
        }
    }

    static Object one(Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            rows.next();
            return rows.getObject(1);
        }
    }

    static void connections(Connection connection) throws Exception {
        try (Connection byUrl = DriverManager.getConnection(
                url() + "?user=" + System.getenv("PGUSER") + "&password=" + System.getenv("PGPASSWORD")
                    + "&ApplicationName=java&currentSchema=public&options=-c%20statement_timeout=5s")) {
            same("java", one(byUrl, "SHOW application_name"), "application_name");
            same("5s", one(byUrl, "SHOW statement_timeout"), "statement_timeout");
            same("public", byUrl.getSchema(), "schema");
            same(true, byUrl.isValid(5), "isValid");
        }
        same(15, connection.getMetaData().getDatabaseMajorVersion(), "major version");
        connection.setClientInfo("ApplicationName", "renamed");
        same("renamed", one(connection, "SHOW application_name"), "client info");
        fails("3D000", () -> DriverManager.getConnection(
            url().replaceAll("/[^/]*$", "/no_such_database"), System.getenv("PGUSER"), System.getenv("PGPASSWORD")));
    }

    static void transactions(Connection connection) throws Exception {
        execute(connection, "CREATE TABLE java_tx (k int PRIMARY KEY, v text)");
        connection.setAutoCommit(false);
        execute(connection, "INSERT INTO java_tx VALUES (1, 'rolled back')");
        connection.rollback();
        execute(connection, "INSERT INTO java_tx VALUES (2, 'kept')");
        Savepoint savepoint = connection.setSavepoint("here");
        fails("23505", () -> execute(connection, "INSERT INTO java_tx VALUES (2, 'twice')"));
        fails("25P02", () -> execute(connection, "SELECT 1"));
        connection.rollback(savepoint);
        execute(connection, "INSERT INTO java_tx VALUES (3, 'kept')");
        connection.commit();
        connection.setAutoCommit(true);
        same(2L, one(connection, "SELECT count(*) FROM java_tx"), "rows");
        connection.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
        same(Connection.TRANSACTION_REPEATABLE_READ, connection.getTransactionIsolation(), "isolation");
        connection.setReadOnly(true);
        connection.setAutoCommit(false);
        fails("25006", () -> execute(connection, "DELETE FROM java_tx"));
        connection.rollback();
    }

    static void batches(Connection connection) throws Exception {
        execute(connection, "CREATE TABLE java_batch (k int PRIMARY KEY, v text)");
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO java_batch VALUES (?, ?)")) {
            for (int i = 0; i < 500; i++) {
                insert.setInt(1, i);
                insert.setString(2, "v" + i);
                insert.addBatch();
            }
            same(500, insert.executeBatch().length, "batch");
            insert.setInt(1, 1000);
            insert.setString(2, "new");
            insert.addBatch();
            insert.setInt(1, 7);
            insert.setString(2, "twice");
            insert.addBatch();
            try {
                insert.executeBatch();
                throw new AssertionError("a duplicate was accepted");
            } catch (BatchUpdateException error) {
                same("23505", error.getSQLState(), "batch error");
            }
        }
        same(500L, one(connection, "SELECT count(*) FROM java_batch"), "rows after the failed batch");
        try (Statement statement = connection.createStatement()) {
            statement.addBatch("UPDATE java_batch SET v = 'x' WHERE k < 10");
            statement.addBatch("DELETE FROM java_batch WHERE k >= 490");
            same("[10, 10]", Arrays.toString(statement.executeBatch()), "statement batch");
        }
        execute(connection, "CREATE TABLE java_keys (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, v text)");
        try (PreparedStatement insert =
                connection.prepareStatement("INSERT INTO java_keys (v) VALUES (?)", Statement.RETURN_GENERATED_KEYS)) {
            for (String v : List.of("a", "b", "c")) {
                insert.setString(1, v);
                insert.addBatch();
            }
            insert.executeBatch();
            try (ResultSet keys = insert.getGeneratedKeys()) {
                for (long expected = 1; expected <= 3; expected++) {
                    same(true, keys.next(), "a generated key");
                    same(expected, keys.getLong("id"), "generated key");
                }
            }
        }
        try (PreparedStatement again = connection.prepareStatement("SELECT v FROM java_batch WHERE k = ?")) {
            for (int i = 20; i < 40; i++) { // a named statement from the fifth time on
                again.setInt(1, i);
                try (ResultSet rows = again.executeQuery()) {
                    rows.next();
                    same("v" + i, rows.getString(1), "prepared");
                }
            }
        }
    }

    static void portals(Connection connection) throws Exception {
        execute(connection, "CREATE TABLE java_many (k int PRIMARY KEY)");
        execute(connection, "INSERT INTO java_many SELECT generate_series(1, 1000)");
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(70);
            try (ResultSet rows = statement.executeQuery("SELECT k FROM java_many ORDER BY k")) {
                long sum = 0;
                while (rows.next()) {
                    sum += rows.getInt(1);
                }
                same(500500L, sum, "sum in portions of 70");
            }
            statement.setMaxRows(5);
            try (ResultSet rows = statement.executeQuery("SELECT k FROM java_many ORDER BY k")) {
                int n = 0;
                while (rows.next()) {
                    n++;
                }
                same(5, n, "max rows");
            }
        }
        connection.commit();
        try (Statement statement = connection.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE);
                ResultSet rows = statement.executeQuery("SELECT k FROM java_many WHERE k > 998 ORDER BY k")) {
            rows.last();
            same(1000, rows.getInt(1), "last");
            rows.updateInt(1, 2000);
            rows.updateRow();
        }
        connection.commit();
        same(2000, one(connection, "SELECT max(k) FROM java_many"), "updated through the result");
    }

    static void metadata(Connection connection) throws Exception {
        execute(connection, "CREATE TABLE java_parent (a int, b varchar(9) NOT NULL, PRIMARY KEY (a, b))");
        execute(connection, "CREATE TABLE java_child (id int PRIMARY KEY, a int, b varchar(9), n numeric(8,3) DEFAULT 1.5, t text[],"
            + " u uuid UNIQUE, FOREIGN KEY (a, b) REFERENCES java_parent ON DELETE CASCADE)");
        execute(connection, "CREATE INDEX java_child_ab ON java_child (a, b)");
        execute(connection, "COMMENT ON TABLE java_child IS 'a child'");
        DatabaseMetaData data = connection.getMetaData();
        same("[java_child, TABLE, a child]", row(data.getTables(null, "public", "java_ch%", new String[] {"TABLE"}),
            "TABLE_NAME", "TABLE_TYPE", "REMARKS").get(0), "tables");
        same(List.of("[id, int4, 10, 0, NO, null]", "[a, int4, 10, 0, YES, null]", "[b, varchar, 9, 0, YES, null]",
                "[n, numeric, 8, 3, YES, 1.5]", "[t, _text, 2147483647, 0, YES, null]", "[u, uuid, 2147483647, 0, YES, null]"),
            row(data.getColumns(null, "public", "java_child", null),
                "COLUMN_NAME", "TYPE_NAME", "COLUMN_SIZE", "DECIMAL_DIGITS", "IS_NULLABLE", "COLUMN_DEF"), "columns");
        same(List.of("[a, 1, java_parent_pkey]", "[b, 2, java_parent_pkey]"),
            row(data.getPrimaryKeys(null, "public", "java_parent"), "COLUMN_NAME", "KEY_SEQ", "PK_NAME"), "primary key");
        same(List.of("[java_parent, a, a, 0]", "[java_parent, b, b, 0]"),
            row(data.getImportedKeys(null, "public", "java_child"), "PKTABLE_NAME", "PKCOLUMN_NAME", "FKCOLUMN_NAME", "DELETE_RULE"),
            "imported keys");
        same(2, row(data.getExportedKeys(null, "public", "java_parent"), "FKTABLE_NAME").size(), "exported keys");
        same(List.of("[java_child_pkey, f, id]", "[java_child_u_key, f, u]", "[java_child_ab, t, a]", "[java_child_ab, t, b]"),
            row(data.getIndexInfo(null, "public", "java_child", false, true), "INDEX_NAME", "NON_UNIQUE", "COLUMN_NAME"), "indexes");
        same(true, row(data.getSchemas(), "TABLE_SCHEM").contains("[public]"), "schemas");
        same(true, row(data.getTypeInfo(), "TYPE_NAME").contains("[timestamptz]"), "type info");
        same(true, row(data.getFunctions(null, null, "upper"), "FUNCTION_NAME").contains("[upper]"), "functions");
        row(data.getCatalogs(), "TABLE_CAT");
        row(data.getTableTypes(), "TABLE_TYPE");
        row(data.getProcedures(null, "public", "%"), "PROCEDURE_NAME");
        row(data.getTablePrivileges(null, "public", "java_child"), "PRIVILEGE");
        row(data.getBestRowIdentifier(null, "public", "java_child", DatabaseMetaData.bestRowSession, false), "COLUMN_NAME");
        row(data.getUDTs(null, null, "%", null), "TYPE_NAME");
        data.getMaxIndexLength();
        data.getSQLKeywords();
        try (PreparedStatement statement = connection.prepareStatement("SELECT n, u FROM java_child WHERE id = ? AND u = ?")) {
            same("int4", statement.getParameterMetaData().getParameterTypeName(1), "parameter type");
            ResultSetMetaData columns = statement.getMetaData();
            same("java_child", columns.getTableName(1), "table of a column");
            same(8, columns.getPrecision(1), "precision");
            same(ResultSetMetaData.columnNullable, columns.isNullable(1), "nullable");
            same(false, columns.isAutoIncrement(1), "auto increment");
        }
    }

    static List<String> row(ResultSet rows, String... columns) throws SQLException {
        List<String> all = new ArrayList<>();
        while (rows.next()) {
            List<String> one = new ArrayList<>();
            for (String column : columns) {
                one.add(rows.getString(column));
            }
            all.add(one.toString());
        }
        rows.close();
        return all;
    }

    static PGobject object(String type, String value) throws SQLException {
        PGobject object = new PGobject();
        object.setType(type);
        object.setValue(value);
        return object;
    }

    static void types(Connection connection) throws Exception {
        LocalDateTime noon = LocalDateTime.of(1999, 12, 31, 23, 59, 59, 999_999_000);
        Object[][] all = {
            {"boolean", true}, {"boolean", false},
            {"smallint", (short) -32768, Integer.class}, {"integer", Integer.MIN_VALUE}, {"bigint", Long.MAX_VALUE},
            {"real", 1.5f}, {"real", Float.NEGATIVE_INFINITY}, {"double precision", 0.1}, {"double precision", Double.NaN},
            {"numeric", new BigDecimal("-12345678901234567890.1234567890")}, {"numeric", new BigDecimal("0.10")},
            {"text", "käse 🧀\n\\"}, {"text", ""}, {"varchar(20)", "short"}, {"char(5)", "ab   "},
            {"bytea", new byte[] {0, -1, 39, 92}},
            {"date", LocalDate.of(2024, 2, 29), LocalDate.class}, {"time", LocalTime.of(23, 59, 59, 1000), LocalTime.class},
            {"timetz", OffsetTime.of(1, 2, 3, 0, ZoneOffset.ofHours(2)), OffsetTime.class},
            {"timestamp", noon, LocalDateTime.class},
            {"timestamptz", OffsetDateTime.of(noon, ZoneOffset.UTC), OffsetDateTime.class},
            {"interval", new PGInterval(1, 2, -3, 4, 5, 6.5)},
            {"uuid", UUID.fromString("01234567-89ab-cdef-0123-456789abcdef")},
            {"json", object("json", "{\"k\": [1, 2.50]}")}, {"jsonb", object("jsonb", "{\"k\": [1, 2.50]}")},
            {"oid", 4294967295L},
        };
        int n = 0;
        for (Object[] one : all) {
            String type = (String) one[0];
            String table = "java_type_" + n++;
            execute(connection, "CREATE TABLE " + table + " (id int PRIMARY KEY, v " + type + ")");
            try (PreparedStatement insert = connection.prepareStatement("INSERT INTO " + table + " VALUES (?, ?)")) {
                insert.setInt(1, 1);
                insert.setObject(2, one[1]);
                insert.executeUpdate();
                insert.setInt(1, 2);
                insert.setObject(2, null);
                insert.executeUpdate();
            }
            try (PreparedStatement select = connection.prepareStatement("SELECT v FROM " + table + " ORDER BY id")) {
                for (int time = 0; time < 7; time++) { // from the fifth on in binary
                    try (ResultSet rows = select.executeQuery()) {
                        rows.next();
                        Object read = one.length < 3 ? rows.getObject(1) : rows.getObject(1, (Class<?>) one[2]);
                        Object wrote = one[1] instanceof Short s ? Integer.valueOf(s) : one[1];
                        same(wrote, read, type + " time " + time);
                        rows.next();
                        same(null, rows.getObject(1), type + " NULL");
                    }
                }
            }
        }
        Object[][] arrays = {
            {"bool", new Boolean[] {true, null, false}}, {"int2", new Short[] {1, -1}}, {"int4", new Integer[] {1, null}},
            {"int8", new Long[] {Long.MIN_VALUE}}, {"float4", new Float[] {1.5f}}, {"float8", new Double[] {0.1, null}},
            {"numeric", new BigDecimal[] {new BigDecimal("1.50"), null}}, {"text", new String[] {"a,b", "\"", null, "", "NULL"}},
            {"varchar", new String[] {"x"}}, {"uuid", new UUID[] {new UUID(1, 2)}}, {"int4", new Integer[0]},
        };
        for (Object[] one : arrays) {
            String sql = "SELECT ?::" + one[0] + "[]";
            try (PreparedStatement select = connection.prepareStatement(sql)) {
                select.setArray(1, connection.createArrayOf((String) one[0], (Object[]) one[1]));
                for (int time = 0; time < 7; time++) {
                    try (ResultSet rows = select.executeQuery()) {
                        rows.next();
                        same(Arrays.asList((Object[]) one[1]), Arrays.asList((Object[]) rows.getArray(1).getArray()), sql);
                    }
                }
            }
        }
    }

    static void copies(Connection connection) throws Exception {
        execute(connection, "CREATE TABLE java_copied (k int PRIMARY KEY, v text)");
        CopyManager copy = connection.unwrap(PGConnection.class).getCopyAPI();
        byte[] in = "1\ta\n2\t\\N\n".getBytes(StandardCharsets.UTF_8);
        same(2L, copy.copyIn("COPY java_copied FROM STDIN", new ByteArrayInputStream(in)), "copied in");
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        same(2L, copy.copyOut("COPY java_copied TO STDOUT", out), "copied out");
        same("1\ta\n2\t\\N\n", out.toString(StandardCharsets.UTF_8), "what was copied");
    }

    static void cancelling(Connection connection) throws Exception {
        try (Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            fails("57014", () -> statement.execute("SELECT pg_sleep(20)"));
        }
        try (Statement statement = connection.createStatement()) {
            Thread canceller = new Thread(() -> {
                try {
                    Thread.sleep(200);
                    statement.cancel();
                } catch (Exception error) {
                    throw new AssertionError(error);
                }
            });
            canceller.start();
            fails("57014", () -> statement.execute("SELECT pg_sleep(20)"));
            canceller.join();
        }
        same(1, one(connection, "SELECT 1"), "the connection goes on");
    }

    static void warnings(Connection connection) throws Exception {
        try (Statement statement = connection.createStatement()) {
            statement.execute("DROP TABLE IF EXISTS never_was");
            same("table \"never_was\" does not exist, skipping", statement.getWarnings().getMessage(), "notice");
            statement.execute("SELECT 1; SELECT 2");
            same(true, statement.getMoreResults(), "second result");
            ResultSet second = statement.getResultSet();
            second.next();
            same(2, second.getInt(1), "second result");
        }
        fails("42703", () -> one(connection, "SELECT nothing"));
    }

    public static void main(String[] arguments) {
        TimeZone.setDefault(TimeZone.getTimeZone("UTC"));
        step("connections", Program::connections);
        step("transactions", Program::transactions);
        step("batches", Program::batches);
        step("batches rewritten", connection -> {
            execute(connection, "DROP TABLE java_batch");
            execute(connection, "DROP TABLE java_keys");
            batches(connection);
        }, "reWriteBatchedInserts", "true");
        step("portals", Program::portals);
        step("metadata", Program::metadata);
        step("types", Program::types);
        step("copies", Program::copies);
        step("cancelling", Program::cancelling);
        step("warnings", Program::warnings);
        step("simple protocol", connection -> same(3, one(connection, "SELECT 1 + 2"), "sum"), "preferQueryMode", "simple");
        System.exit(failed.isEmpty() ? 0 : 1);
    }
}
