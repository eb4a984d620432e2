//! Stories: several statements that belong together, such as a transaction or a table that is altered. Each ends
//! with the schema as it found it, whichever of its statements failed.

use std::fmt::Write;

use rand::Rng;

use super::{Generator, Made, Relation, Scope, TYPES, Table, Type, named};

/// What a story may leave behind if it is broken off; dropped before the next schema.
pub(super) const LEFT_BEHIND: &[&str] = &[
    "ROLLBACK",
    "DROP VIEW IF EXISTS story_view",
    "DROP TABLE IF EXISTS story_child",
    "DROP SEQUENCE IF EXISTS story_sequence",
];

impl Generator {
    /// Makes the statements of a story, to be given one by one.
    pub(super) fn begin_story(&mut self) {
        let statements = match self.below(8) {
            0 | 1 => self.transaction(),
            2 | 3 => self.alter_table(),
            4 => self.foreign_key(),
            5 => self.sequence(),
            6 => self.view(),
            _ => self.cursor(),
        };
        self.story.extend(statements);
    }

    fn plain(&self, sql: impl Into<String>) -> Made {
        Made { sql: sql.into(), parameters: Vec::new(), ordered: true }
    }

    fn scope_of(table: &Table) -> Scope {
        let relation = Relation { alias: table.name.clone(), columns: table.columns.clone() };
        Scope { relations: vec![relation], partial: false }
    }

    /// A transaction of writes and savepoints; one that an error ended goes on with 25P02.
    fn transaction(&mut self) -> Vec<Made> {
        let level =
            self.pick(&["", "", " ISOLATION LEVEL REPEATABLE READ", " ISOLATION LEVEL READ COMMITTED"]);
        let mut made = vec![self.plain(format!("BEGIN{level}"))];
        for _ in 0..self.rng.random_range(2..7) {
            made.push(match self.below(12) {
                0 | 1 => self.plain("SAVEPOINT a"),
                2 => self.plain("ROLLBACK TO SAVEPOINT a"),
                3 => self.plain("RELEASE SAVEPOINT a"),
                4 => self.update(),
                5 => self.delete(),
                6 => self.writing_with(),
                7 => {
                    let table = self.table();
                    self.plain(format!("SELECT count(*), min(id), max(id) FROM {}", table.name))
                }
                8 => {
                    let table = self.table();
                    let strength = self.pick(&["UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"]);
                    self.plain(format!(
                        "SELECT id FROM {} WHERE id < 5 ORDER BY id FOR {strength}",
                        table.name
                    ))
                }
                _ => self.insert(),
            });
        }
        let end = self.pick(&["COMMIT", "COMMIT", "ROLLBACK"]);
        made.push(self.plain(end));
        made
    }

    /// A WITH query that writes, and what the statement makes of its rows.
    pub(super) fn writing_with(&mut self) -> Made {
        self.parameters = None;
        let table = self.table();
        let scope = Generator::scope_of(&table);
        let (name, ty) = self.column(&table);
        let inner = match self.below(3) {
            0 => format!(
                "DELETE FROM {} WHERE id % 4 = 1 AND {} RETURNING *",
                table.name,
                self.condition(1, &scope)
            ),
            1 => {
                let value = self.expression(ty, 1, &scope);
                format!("UPDATE {} SET {name} = {value} WHERE id < 6 RETURNING *", table.name)
            }
            _ => {
                let (first, value) = (self.rng.random_range(1..40), self.sample(ty));
                format!(
                    "INSERT INTO {0} (id, {name}) VALUES ({first}, {value}), ({1}, {value}) ON CONFLICT DO NOTHING RETURNING *",
                    table.name,
                    first + 1
                )
            }
        };
        let outer = match self.below(3) {
            0 => "SELECT count(*), min(id), max(id) FROM w".to_owned(),
            1 => format!("SELECT id, {name} FROM w"),
            _ => {
                let other = self.table();
                format!("SELECT w.id FROM w JOIN {0} ON {0}.id = w.id", other.name)
            }
        };
        Made { sql: format!("WITH w AS ({inner}) {outer}"), parameters: Vec::new(), ordered: false }
    }

    fn alter_table(&mut self) -> Vec<Made> {
        let table = self.table();
        let t = &table.name;
        let ty = self.pick(TYPES);
        let literal = self.sample(ty);
        let mut statements = Vec::new();
        let (block, end) = match self.chance(40) {
            true => (Some("BEGIN"), Some(self.pick(&["COMMIT", "ROLLBACK"]))),
            false => (None, None),
        };
        statements.extend(block.map(str::to_owned));
        let option = match self.below(4) {
            0 => String::new(),
            1 => format!(" DEFAULT {literal}"),
            2 => format!(" DEFAULT {literal} NOT NULL"),
            _ => " NOT NULL".to_owned(),
        };
        statements.push(format!("ALTER TABLE {t} ADD COLUMN x {}{option}", ty.name));
        for _ in 0..self.rng.random_range(2..6) {
            let other = self.pick(TYPES);
            statements.push(match self.below(13) {
                0 => format!("ALTER TABLE {t} ALTER COLUMN x SET DEFAULT {literal}"),
                1 => format!("ALTER TABLE {t} ALTER x DROP DEFAULT, ALTER x DROP NOT NULL"),
                2 => format!("ALTER TABLE {t} ALTER x SET NOT NULL"),
                3 => format!("ALTER TABLE {t} ALTER COLUMN x TYPE {}", other.name),
                4 => format!("ALTER TABLE {t} ALTER x TYPE text USING x::text"),
                5 => format!("ALTER TABLE {t} RENAME COLUMN x TO y"),
                6 => format!("ALTER TABLE {t} RENAME y TO x"),
                7 => format!("ALTER TABLE {t} ADD CONSTRAINT x_check CHECK (x IS NOT NULL OR id > 2)"),
                8 => format!("ALTER TABLE {t} ADD CONSTRAINT x_unique UNIQUE (x)"),
                9 => format!("ALTER TABLE {t} DROP CONSTRAINT IF EXISTS x_check"),
                10 => format!("INSERT INTO {t} (id, x) VALUES ({}, {literal})", self.rng.random_range(1..30)),
                11 => format!("CREATE INDEX x_index ON {t} (x)"),
                _ => format!("UPDATE {t} SET x = {literal} WHERE id % 2 = 0"),
            });
            statements.push(format!("SELECT * FROM {t} ORDER BY id"));
        }
        statements.extend(end.map(str::to_owned));
        statements.push("ROLLBACK".into());
        statements.push(format!("ALTER TABLE {t} DROP COLUMN IF EXISTS x"));
        statements.push(format!("ALTER TABLE {t} DROP COLUMN IF EXISTS y CASCADE"));
        statements.into_iter().map(|sql| self.plain(sql)).collect()
    }

    fn foreign_key(&mut self) -> Vec<Made> {
        const ACTIONS: [&str; 5] = ["", " CASCADE", " SET NULL", " SET DEFAULT", " RESTRICT"];
        let table = self.table();
        let t = &table.name;
        let clause = |verb: &str, action: &str| match action {
            "" => String::new(),
            action => format!(" ON {verb}{action}"),
        };
        let (delete, update) = (self.pick(&ACTIONS), self.pick(&ACTIONS));
        let when = self.pick(&["", "", " DEFERRABLE", " DEFERRABLE INITIALLY DEFERRED"]);
        let mut statements = vec![format!(
            "CREATE TABLE story_child (id int PRIMARY KEY, parent int DEFAULT 1 REFERENCES {t}{}{}{when})",
            clause("DELETE", delete),
            clause("UPDATE", update)
        )];
        let deferred = !when.is_empty();
        if deferred {
            statements.push("BEGIN".into());
        }
        for i in 1..self.rng.random_range(4..8) {
            let n = self.rng.random_range(1..12);
            statements.push(match self.below(6) {
                0 => format!("DELETE FROM {t} WHERE id = {n}"),
                1 => format!("UPDATE {t} SET id = id + 100 WHERE id = {n}"),
                2 => format!("UPDATE story_child SET parent = {n} WHERE id < {i}"),
                _ => format!("INSERT INTO story_child VALUES ({i}, {n})"),
            });
            statements.push("SELECT * FROM story_child ORDER BY id".into());
        }
        if deferred {
            statements.push("COMMIT".into());
        }
        statements.extend([
            "SELECT * FROM story_child ORDER BY id".into(),
            "DROP TABLE IF EXISTS story_child".into(),
        ]);
        statements.push(format!("SELECT id FROM {t} ORDER BY id"));
        statements.into_iter().map(|sql| self.plain(sql)).collect()
    }

    fn sequence(&mut self) -> Vec<Made> {
        let (start, step) = (self.rng.random_range(-5..20), self.pick(&[1, 2, 5, -1, -3]));
        let ty = self.pick(&["", " AS smallint", " AS integer"]);
        let bounds =
            self.pick(&["", " MAXVALUE 21", " MINVALUE -6 MAXVALUE 20 CYCLE", " CACHE 3", " NO CYCLE"]);
        let mut sql = format!("CREATE SEQUENCE story_sequence{ty} INCREMENT {step} START {start}");
        let _ = write!(sql, "{bounds}");
        let mut statements = vec![sql];
        for _ in 0..self.rng.random_range(3..8) {
            let n = self.rng.random_range(-3..25);
            statements.push(match self.below(9) {
                0 => format!("SELECT setval('story_sequence', {n})"),
                1 => format!("SELECT setval('story_sequence', {n}, false)"),
                2 => format!("ALTER SEQUENCE story_sequence RESTART WITH {n}"),
                3 => "SELECT currval('story_sequence'), lastval()".into(),
                4 => format!("ALTER SEQUENCE story_sequence INCREMENT BY {}", self.pick(&[1, 3, -2])),
                5 => "ALTER SEQUENCE story_sequence RESTART".into(),
                _ => "SELECT nextval('story_sequence'), nextval('story_sequence')".into(),
            });
        }
        statements.push("DROP SEQUENCE IF EXISTS story_sequence".into());
        statements.into_iter().map(|sql| self.plain(sql)).collect()
    }

    fn view(&mut self) -> Vec<Made> {
        self.parameters = None;
        let (query, types) = self.query(1, &[]);
        let columns: Vec<(String, Type)> =
            types.iter().enumerate().map(|(i, t)| (format!("v{i}"), *t)).collect();
        let names: Vec<&str> = columns.iter().map(|(n, _)| n.as_str()).collect();
        let view = Table { name: "story_view".into(), columns: columns.clone() };
        let scope = Generator::scope_of(&view);
        let mut made = vec![self.plain(format!("CREATE VIEW story_view ({}) AS {query}", names.join(", ")))];
        for _ in 0..2 {
            let condition = self.condition(1, &scope);
            let ty = self.pick(TYPES);
            let item = self.expression(ty, 1, &scope);
            let sql = format!("SELECT {} FROM story_view WHERE {condition}", named(&[item]));
            made.push(Made { ordered: false, ..self.plain(sql) });
        }
        let select = Made { ordered: false, ..self.plain("SELECT * FROM story_view") };
        made.extend([select, self.plain("DROP VIEW IF EXISTS story_view")]);
        made
    }

    fn cursor(&mut self) -> Vec<Made> {
        let table = self.table();
        let (name, _) = self.column(&table);
        let scroll = self.pick(&["", " SCROLL", " NO SCROLL"]);
        let mut statements = vec![
            "BEGIN".to_owned(),
            format!("DECLARE c{scroll} CURSOR FOR SELECT id, {name} FROM {} ORDER BY id", table.name),
        ];
        let forward = ["NEXT", "2", "FORWARD 3", "ALL", "0", "RELATIVE 1"];
        let both = [
            "NEXT",
            "PRIOR",
            "FIRST",
            "LAST",
            "ABSOLUTE 2",
            "BACKWARD 2",
            "ABSOLUTE -1",
            "RELATIVE -1",
            "ALL",
        ];
        for _ in 0..self.rng.random_range(2..6) {
            let how = if scroll == " SCROLL" { self.pick(&both) } else { self.pick(&forward) };
            let verb = self.pick(&["FETCH", "FETCH", "MOVE"]);
            statements.push(format!("{verb} {how} FROM c"));
        }
        statements.extend(["CLOSE c".into(), "COMMIT".into()]);
        statements.into_iter().map(|sql| self.plain(sql)).collect()
    }
}
