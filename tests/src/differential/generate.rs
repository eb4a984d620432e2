//! Schemas, rows, queries and stories from a seed.

mod story;

use std::collections::VecDeque;
use std::fmt::Write;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::samples::{TYPES, Type, quoted, type_of};
use super::template::{PARTIAL, TOTAL, Template, WRONG};

/// How deep expressions and queries nest.
const DEPTH: u32 = 3;

/// A table as the generator knows it. The first column is `id integer`, its primary key.
#[derive(Debug, Clone)]
pub struct Table {
    /// Its name
    pub name: String,
    /// Columns and their types
    pub columns: Vec<(String, Type)>,
}

/// A relation in scope: alias and columns.
#[derive(Debug, Clone)]
struct Relation {
    alias: String,
    columns: Vec<(String, Type)>,
}

/// What an expression may be made of.
#[derive(Debug, Clone, Default)]
struct Scope {
    relations: Vec<Relation>,
    /// Templates that may fail are allowed
    partial: bool,
}

/// A statement to run on both.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its text
    pub sql: String,
    /// Values of its parameters
    pub parameters: Vec<Option<String>>,
    /// Rows must come in the same order
    pub ordered: bool,
}

/// The generator: one seed, one sequence.
pub struct Generator {
    rng: StdRng,
    /// The tables there are
    pub tables: Vec<Table>,
    parameters: Option<Vec<Option<String>>>,
    aliases: usize,
    /// What is left of the story that is told
    story: VecDeque<Made>,
}

impl Generator {
    /// A generator.
    pub fn new(seed: u64) -> Generator {
        Generator {
            rng: StdRng::seed_from_u64(seed),
            tables: Vec::new(),
            parameters: None,
            aliases: 0,
            story: VecDeque::new(),
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.rng.random_range(0..100) < percent
    }

    fn below(&mut self, n: usize) -> usize {
        self.rng.random_range(0..n)
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        *list.choose(&mut self.rng).expect("a list with something in it")
    }

    fn table(&mut self) -> Table {
        let i = self.below(self.tables.len());
        self.tables[i].clone()
    }

    fn alias(&mut self, prefix: &str) -> String {
        self.aliases += 1;
        format!("{prefix}{}", self.aliases)
    }

    /// A new schema: statements that make tables, indexes and rows.
    pub fn schema(&mut self) -> Vec<String> {
        self.story.clear();
        let mut statements: Vec<String> = story::LEFT_BEHIND.iter().map(|sql| (*sql).to_owned()).collect();
        statements.extend(self.tables.iter().rev().map(|t| format!("DROP TABLE IF EXISTS {}", t.name)));
        self.tables.clear();
        let stored: Vec<Type> = TYPES.to_vec();
        for t in 0..3 {
            let name = format!("t{t}");
            let mut columns = vec![("id".to_owned(), type_of("integer"))];
            for c in 0..self.rng.random_range(3..9) {
                let ty = self.pick(&stored);
                columns.push((format!("c{c}"), ty));
            }
            let mut ddl = format!("CREATE TABLE {name} (id integer PRIMARY KEY");
            for (column, ty) in &columns[1..] {
                let _ = write!(ddl, ", {column} {}", ty.name);
                match self.below(12) {
                    0 => {
                        let literal = self.sample(*ty);
                        let _ = write!(ddl, " DEFAULT {literal} NOT NULL");
                    }
                    1 | 2 => {
                        let literal = self.sample(*ty);
                        let _ = write!(ddl, " DEFAULT {literal}");
                    }
                    3 if ty.ordered => ddl += " UNIQUE",
                    4 => {
                        let _ = write!(ddl, " CHECK ({column} IS NOT NULL OR id > 0)");
                    }
                    _ => {}
                }
            }
            ddl.push(')');
            statements.push(ddl);
            for (i, (column, ty)) in columns.iter().enumerate().skip(1) {
                if ty.ordered && self.chance(25) {
                    statements.push(format!("CREATE INDEX {name}_i{i} ON {name} ({column})"));
                }
            }
            let table = Table { name, columns };
            self.tables.push(table.clone());
            for id in 1..=self.rng.random_range(0..9) {
                statements.push(self.insert_row(&table, id));
            }
        }
        statements
    }

    fn insert_row(&mut self, table: &Table, id: usize) -> String {
        let values: Vec<String> = table.columns[1..]
            .iter()
            .map(|(_, ty)| if self.chance(15) { "NULL".into() } else { self.sample(*ty) })
            .collect();
        format!("INSERT INTO {} VALUES ({id}, {})", table.name, values.join(", "))
    }

    /// A literal of a type that reads well.
    fn sample(&mut self, ty: Type) -> String {
        let text = ty.samples.choose(&mut self.rng).expect("every type has samples");
        format!("{}::{}", quoted(text), ty.name)
    }

    /// A statement of any kind.
    pub fn statement(&mut self) -> Made {
        if let Some(made) = self.story.pop_front() {
            return made;
        }
        self.aliases = 0;
        match self.below(100) {
            0 | 1 => {
                self.begin_story();
                self.statement()
            }
            2..=52 => self.select(),
            53 | 54 => self.writing_with(),
            55..=69 => self.expression_alone(),
            70..=77 => self.insert(),
            78..=83 => self.update(),
            84..=87 => self.delete(),
            _ => self.wrong(),
        }
    }

    fn made(&mut self, sql: String, ordered: bool) -> Made {
        Made { sql, parameters: self.parameters.take().unwrap_or_default(), ordered }
    }

    /// Expressions over no table, of all types, with parameters among them.
    fn expression_alone(&mut self) -> Made {
        self.parameters = self.chance(50).then(Vec::new);
        let mut items = Vec::new();
        for _ in 0..self.rng.random_range(1..4) {
            let ty = self.pick(TYPES);
            let scope = Scope { relations: Vec::new(), partial: items.is_empty() };
            items.push(self.expression(ty, DEPTH, &scope));
        }
        self.made(format!("SELECT {}", items.join(", ")), true)
    }

    fn wrong(&mut self) -> Made {
        let text = self.pick(WRONG);
        let sql = self.fill(text, 1, &Scope::default());
        self.made(sql, true)
    }

    fn insert(&mut self) -> Made {
        self.parameters = self.chance(30).then(Vec::new);
        let table = self.table();
        let scope = Scope { relations: Vec::new(), partial: false };
        let mut columns = vec!["id".to_owned()];
        let mut types = vec![type_of("integer")];
        for (name, ty) in &table.columns[1..] {
            if self.chance(70) {
                columns.push(name.clone());
                types.push(*ty);
            }
        }
        let one = self.chance(60);
        let rows: Vec<String> = (0..if one { 1 } else { self.rng.random_range(2..4) })
            .map(|_| {
                let mut values = vec![self.rng.random_range(1..25).to_string()];
                for ty in &types[1..] {
                    values.push(match self.below(10) {
                        0 => "DEFAULT".into(),
                        1 => "NULL".into(),
                        _ => self.expression(*ty, 1, &scope),
                    });
                }
                format!("({})", values.join(", "))
            })
            .collect();
        let mut sql =
            format!("INSERT INTO {} ({}) VALUES {}", table.name, columns.join(", "), rows.join(", "));
        match self.below(8) {
            0 | 1 => sql += " ON CONFLICT DO NOTHING",
            4 => {
                let scope = Scope {
                    relations: vec![
                        Relation { alias: table.name.clone(), columns: table.columns.clone() },
                        Relation { alias: "excluded".into(), columns: table.columns.clone() },
                    ],
                    partial: false,
                };
                let (name, ty) = self.column(&table);
                let (value, condition) = (self.expression(ty, 1, &scope), self.condition(1, &scope));
                let constraint = self.pick(&["(id)", "ON CONSTRAINT"]);
                let target = if constraint == "(id)" {
                    "(id)".into()
                } else {
                    format!("{constraint} {}_pkey", table.name)
                };
                let _ = write!(sql, " ON CONFLICT {target} DO UPDATE SET {name} = {value} WHERE {condition}");
            }
            2 => sql += " ON CONFLICT (id) DO NOTHING",
            3 => {
                let (name, _) = self.column(&table);
                let _ = write!(sql, " ON CONFLICT (id) DO UPDATE SET {name} = excluded.{name}");
                if self.chance(40) {
                    let _ = write!(sql, " WHERE {}.id % 2 = 0", table.name);
                }
            }
            _ => {}
        }
        let returning = self.returning(&table);
        self.made(sql + &returning, false)
    }

    fn column(&mut self, table: &Table) -> (String, Type) {
        let i = self.rng.random_range(1..table.columns.len());
        table.columns[i].clone()
    }

    fn returning(&mut self, table: &Table) -> String {
        match self.below(3) {
            0 => String::new(),
            1 => " RETURNING *".into(),
            _ => {
                let scope = Scope {
                    relations: vec![Relation { alias: table.name.clone(), columns: table.columns.clone() }],
                    partial: false,
                };
                let ty = self.pick(TYPES);
                format!(" RETURNING id, {}", self.expression(ty, 1, &scope))
            }
        }
    }

    fn update(&mut self) -> Made {
        self.parameters = self.chance(30).then(Vec::new);
        let table = self.table();
        let scope = Scope {
            relations: vec![Relation { alias: table.name.clone(), columns: table.columns.clone() }],
            partial: false,
        };
        let (name, ty) = self.column(&table);
        let value = if self.chance(10) { "DEFAULT".into() } else { self.expression(ty, 2, &scope) };
        let mut sql = format!("UPDATE {} SET {name} = {value}", table.name);
        if self.chance(20) {
            let other = self.table();
            if other.name != table.name {
                let _ = write!(sql, " FROM {0} WHERE {0}.id = {1}.id AND ", other.name, table.name);
            } else {
                sql += " WHERE ";
            }
        } else {
            sql += " WHERE ";
        }
        sql += &self.condition(2, &scope);
        let returning = if sql.contains(" FROM ") {
            format!(" RETURNING {}.id", table.name)
        } else {
            self.returning(&table)
        };
        self.made(sql + &returning, false)
    }

    fn delete(&mut self) -> Made {
        let table = self.table();
        let scope = Scope {
            relations: vec![Relation { alias: table.name.clone(), columns: table.columns.clone() }],
            partial: false,
        };
        let condition = self.condition(2, &scope);
        let sql = format!("DELETE FROM {} WHERE id % 3 = 0 AND {condition}", table.name);
        let returning = self.returning(&table);
        self.made(sql + &returning, false)
    }

    fn condition(&mut self, depth: u32, scope: &Scope) -> String {
        self.expression(type_of("boolean"), depth, scope)
    }

    /// A query, often with parameters.
    fn select(&mut self) -> Made {
        self.parameters = self.chance(25).then(Vec::new);
        let (sql, types) = self.query(2, &[]);
        // Rows that look alike are alike only where equal values are.
        if self.chance(45) && !types.is_empty() && types.iter().all(|t| t.ordered && t.exact) {
            let keys: Vec<String> = (1..=types.len())
                .map(|i| {
                    let direction = self.pick(&["", " DESC", " ASC NULLS FIRST", " DESC NULLS LAST"]);
                    format!("{i}{direction}")
                })
                .collect();
            let mut sql = format!("{sql} ORDER BY {}", keys.join(", "));
            if self.chance(50) {
                let _ = write!(sql, " LIMIT {}", self.below(8));
            }
            if self.chance(30) {
                let _ = write!(sql, " OFFSET {}", self.below(4));
            }
            return self.made(sql, true);
        }
        self.made(sql, false)
    }

    /// A query and its columns' types.
    fn query(&mut self, depth: u32, outer: &[Relation]) -> (String, Vec<Type>) {
        if depth > 0 && self.chance(12) {
            return self.set_operation(depth, outer);
        }
        if depth > 0 && self.chance(10) {
            return self.with(depth);
        }
        let mut relations = Vec::new();
        let from = self.from(depth, &mut relations);
        let single = relations.len() == 1;
        let mut scope = Scope { relations, partial: false };
        let mut sql_where = String::new();
        scope.relations.extend_from_slice(outer);
        if self.chance(60) {
            let condition = if depth > 0 && self.chance(20) {
                self.subquery_condition(depth, &scope)
            } else {
                self.condition(2, &scope)
            };
            let _ = write!(sql_where, " WHERE {condition}");
        }
        if self.chance(30) {
            return self.grouped(&from, &sql_where, scope);
        }
        scope.partial = single && sql_where.is_empty() && outer.is_empty() && depth == 2 && self.chance(30);
        let mut items = Vec::new();
        let mut types = Vec::new();
        for i in 0..self.rng.random_range(1..4) {
            let ty = self.pick(TYPES);
            let item = match self.below(12) {
                0 if outer.is_empty() => self.window(&scope, &mut types),
                1 if depth > 0 => {
                    types.push(type_of("bigint"));
                    self.scalar_subquery(&scope)
                }
                _ => {
                    types.push(ty);
                    // One column at most may fail: of two errors either may come first.
                    let partial = scope.partial && i == 0;
                    let depth = if scope.relations.len() > 2 { 1 } else { 2 };
                    self.expression(ty, depth, &Scope { partial, ..scope.clone() })
                }
            };
            items.push(item);
        }
        let distinct =
            if types.iter().all(|t| t.ordered && t.exact) && self.chance(20) { "DISTINCT " } else { "" };
        (format!("SELECT {distinct}{}{from}{sql_where}", named(&items)), types)
    }

    fn set_operation(&mut self, depth: u32, outer: &[Relation]) -> (String, Vec<Type>) {
        let exact: Vec<Type> = TYPES.iter().filter(|t| t.ordered && t.exact).copied().collect();
        let types: Vec<Type> = (0..self.rng.random_range(1..3)).map(|_| self.pick(&exact)).collect();
        let mut arms = Vec::new();
        for _ in 0..self.rng.random_range(2..4) {
            let mut relations = Vec::new();
            let from = self.from(depth - 1, &mut relations);
            relations.extend_from_slice(outer);
            let scope = Scope { relations, partial: false };
            let items: Vec<String> = types.iter().map(|t| self.expression(*t, 1, &scope)).collect();
            arms.push(format!("(SELECT {}{from})", named(&items)));
        }
        let mut sql = arms.remove(0);
        for arm in arms {
            let op = self.pick(&["UNION", "UNION ALL", "INTERSECT", "EXCEPT", "INTERSECT ALL", "EXCEPT ALL"]);
            let _ = write!(sql, " {op} {arm}");
        }
        (sql, types)
    }

    fn with(&mut self, depth: u32) -> (String, Vec<Type>) {
        let (inner, types) = self.query(depth - 1, &[]);
        let name = self.alias("w");
        let names: Vec<String> = (0..types.len()).map(|i| format!("x{i}")).collect();
        let kind = self.pick(&["", " MATERIALIZED", " NOT MATERIALIZED"]);
        let columns: Vec<(String, Type)> = names.iter().cloned().zip(types.iter().copied()).collect();
        let alias = self.alias("r");
        let relation = Relation { alias: alias.clone(), columns };
        let scope = Scope { relations: vec![relation], partial: false };
        let condition = self.condition(1, &scope);
        let ty = self.pick(TYPES);
        let item = self.expression(ty, 1, &scope);
        (
            format!(
                "WITH {name} ({}) AS{kind} ({inner}) SELECT {} FROM {name} {alias} WHERE {condition}",
                names.join(", "),
                named(&[item])
            ),
            vec![ty],
        )
    }

    /// GROUP BY with aggregates that do not depend on the order of rows.
    fn grouped(&mut self, from: &str, sql_where: &str, scope: Scope) -> (String, Vec<Type>) {
        let exact: Vec<Type> = TYPES.iter().filter(|t| t.ordered && t.exact).copied().collect();
        let mut keys = Vec::new();
        let mut types = Vec::new();
        for _ in 0..self.below(3) {
            let ty = self.pick(&exact);
            keys.push(self.expression(ty, 1, &scope));
            types.push(ty);
        }
        let mut items = keys.clone();
        for _ in 0..self.rng.random_range(1..4) {
            let (gives, call) = self.pick(AGGREGATES);
            let mut text = self.fill(call, 1, &scope);
            if self.chance(20) {
                let _ = write!(text, " FILTER (WHERE {})", self.condition(1, &scope));
            }
            items.push(text);
            types.push(type_of(gives));
        }
        let mut sql = format!("SELECT {}{from}{sql_where}", named(&items));
        // A constant in GROUP BY would be the number of a column.
        let grouping: Vec<String> = (1..=keys.len()).map(|i| i.to_string()).collect();
        if !grouping.is_empty() {
            let _ = write!(sql, " GROUP BY {}", grouping.join(", "));
        }
        if self.chance(25) {
            let _ = write!(sql, " HAVING count(*) {} {}", self.pick(&[">", "<", "="]), self.below(4));
        }
        (sql, types)
    }

    fn window(&mut self, scope: &Scope, types: &mut Vec<Type>) -> String {
        let (gives, call) = self.pick(WINDOWS);
        types.push(type_of(gives));
        let partition = if self.chance(50) {
            let exact: Vec<Type> = TYPES.iter().filter(|t| t.ordered && t.exact).copied().collect();
            let ty = self.pick(&exact);
            format!("PARTITION BY {} ", self.expression(ty, 1, scope))
        } else {
            String::new()
        };
        // An order in which no two rows are peers unless they are the same rows of all tables.
        let keys: Vec<String> =
            scope.relations.iter().map(|r| format!("{}.{}", r.alias, r.columns[0].0)).collect();
        let order = if keys.is_empty() { "1".into() } else { keys.join(", ") };
        let frame = self.pick(FRAMES);
        let call = self.fill(call, 1, scope);
        let frame = if call.contains("row_number") || call.contains("rank") { "" } else { frame };
        format!("{call} OVER ({partition}ORDER BY {order}{frame})")
    }

    fn scalar_subquery(&mut self, scope: &Scope) -> String {
        let table = self.table();
        let alias = self.alias("s");
        let mut inner = scope.clone();
        inner.partial = false;
        inner.relations.push(Relation { alias: alias.clone(), columns: table.columns.clone() });
        let condition = self.condition(1, &inner);
        format!("(SELECT count(*) FROM {} {alias} WHERE {condition})", table.name)
    }

    fn subquery_condition(&mut self, depth: u32, scope: &Scope) -> String {
        let table = self.table();
        let alias = self.alias("e");
        let mut inner = scope.clone();
        inner.relations.push(Relation { alias: alias.clone(), columns: table.columns.clone() });
        let condition = self.condition(1, &inner);
        let not = self.pick(&["", "NOT "]);
        let integer = type_of("integer");
        match self.below(4) {
            0 => format!("{not}EXISTS (SELECT 1 FROM {} {alias} WHERE {condition})", table.name),
            1 => {
                let left = self.expression(integer, 1, scope);
                format!("{left} {not}IN (SELECT {alias}.id FROM {} {alias} WHERE {condition})", table.name)
            }
            2 => {
                let left = self.expression(integer, 1, scope);
                let op = self.pick(&["<", ">=", "=", "<>"]);
                let all = self.pick(&["ANY", "ALL"]);
                format!("{left} {op} {all} (SELECT {alias}.id FROM {} {alias} WHERE {condition})", table.name)
            }
            _ if depth > 1 => {
                let left = self.expression(integer, 1, scope);
                format!("{left} > (SELECT max({alias}.id) FROM {} {alias} WHERE {condition})", table.name)
            }
            _ => format!("EXISTS (SELECT FROM {} {alias} WHERE {condition})", table.name),
        }
    }

    /// FROM: tables, joins, subqueries, VALUES, functions; none at times.
    fn from(&mut self, depth: u32, relations: &mut Vec<Relation>) -> String {
        let count = [1, 1, 1, 2, 2, 3][self.below(6)];
        let mut sql = String::from(" FROM ");
        for i in 0..count {
            let (text, relation) = self.relation(depth);
            if i == 0 {
                sql += &text;
                relations.push(relation);
                continue;
            }
            let kind = self.pick(&["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN", ","]);
            relations.push(relation);
            match kind {
                "," => {
                    let _ = write!(sql, ", {text}");
                }
                "CROSS JOIN" => {
                    let _ = write!(sql, " CROSS JOIN {text}");
                }
                _ => {
                    let scope = Scope { relations: relations.clone(), partial: false };
                    let last = &relations[relations.len() - 1];
                    let first = &relations[relations.len() - 2];
                    let equal = (first.columns[0].1 == last.columns[0].1).then(|| {
                        format!(
                            "{}.{} = {}.{}",
                            first.alias, first.columns[0].0, last.alias, last.columns[0].0
                        )
                    });
                    // FULL JOIN wants an equality; and a comma before would hide the left side.
                    let on = match equal {
                        Some(equal) if kind == "FULL JOIN" || self.chance(70) => equal,
                        _ if kind == "FULL JOIN" || sql.contains(", ") => "true".into(),
                        _ => self.condition(1, &scope),
                    };
                    let kind = if on == "true" { "JOIN" } else { kind };
                    let _ = write!(sql, " {kind} {text} ON {on}");
                }
            }
        }
        sql
    }

    fn relation(&mut self, depth: u32) -> (String, Relation) {
        if depth > 0 {
            match self.below(8) {
                0 => {
                    let (sql, types) = self.query(depth - 1, &[]);
                    let alias = self.alias("q");
                    let columns: Vec<(String, Type)> =
                        types.iter().enumerate().map(|(i, t)| (format!("x{i}"), *t)).collect();
                    let names: Vec<&str> = columns.iter().map(|(n, _)| n.as_str()).collect();
                    return (format!("({sql}) {alias} ({})", names.join(", ")), Relation { alias, columns });
                }
                1 => {
                    let alias = self.alias("v");
                    let (a, b) = (type_of("integer"), self.pick(TYPES));
                    let rows: Vec<String> = (0..self.rng.random_range(1..5))
                        .map(|i| format!("({i}, {})", self.sample(b)))
                        .collect();
                    return (
                        format!("(VALUES {}) {alias} (id, y)", rows.join(", ")),
                        Relation { alias, columns: vec![("id".into(), a), ("y".into(), b)] },
                    );
                }
                2 => {
                    let alias = self.alias("g");
                    return (
                        format!("generate_series(1, {}) {alias} (id)", self.below(6)),
                        Relation { alias, columns: vec![("id".into(), type_of("integer"))] },
                    );
                }
                _ => {}
            }
        }
        let table = self.table();
        let alias = self.alias("a");
        (format!("{} {alias}", table.name), Relation { alias, columns: table.columns })
    }

    /// An expression of a type.
    fn expression(&mut self, ty: Type, depth: u32, scope: &Scope) -> String {
        if depth == 0 || self.chance(15) {
            return self.leaf(ty, scope);
        }
        let partial = scope.partial && self.chance(50);
        let from: &[Template] = if partial { PARTIAL } else { TOTAL };
        let fitting: Vec<&Template> = from.iter().filter(|t| t.gives == ty.name).collect();
        match fitting.choose(&mut self.rng) {
            // One failing place an expression is enough: its operands do not fail.
            Some(template) if partial => {
                self.fill(template.text, depth - 1, &Scope { partial: false, ..scope.clone() })
            }
            Some(template) => self.fill(template.text, depth - 1, scope),
            None => self.leaf(ty, scope),
        }
    }

    /// Fills a template's holes.
    fn fill(&mut self, text: &str, depth: u32, scope: &Scope) -> String {
        let mut sql = String::new();
        let mut rest = text;
        let mut partial = scope.partial;
        while let Some((before, after)) = rest.split_once('{') {
            sql += before;
            let Some((hole, tail)) = after.split_once('}') else { break };
            if hole == "table" {
                sql += &self.table().name;
            } else if let Some(ty) = TYPES.iter().find(|t| t.name == hole) {
                sql += &self.expression(*ty, depth, &Scope { partial, ..scope.clone() });
                partial = false;
            } else {
                let _ = write!(sql, "{{{hole}}}");
            }
            rest = tail;
        }
        sql + rest
    }

    fn leaf(&mut self, ty: Type, scope: &Scope) -> String {
        let mut columns = Vec::new();
        for relation in &scope.relations {
            for (name, t) in &relation.columns {
                if t.name == ty.name {
                    columns.push(format!("{}.{name}", relation.alias));
                }
            }
        }
        if !columns.is_empty() && self.chance(75) {
            return columns.choose(&mut self.rng).cloned().unwrap_or_default();
        }
        if self.chance(6) {
            return format!("NULL::{}", ty.name);
        }
        if self.parameters.is_some() && self.chance(40) {
            let text = ty.samples.choose(&mut self.rng).map(|s| (*s).to_owned());
            let null = self.chance(8);
            if let Some(parameters) = &mut self.parameters {
                parameters.push(if null { None } else { text });
                return format!("${}::{}", parameters.len(), ty.name);
            }
        }
        match ty.name {
            "integer" if self.chance(50) => self.rng.random_range(-3..12).to_string(),
            "text" if self.chance(50) => quoted(self.pick(&["a", "b", "abc", "", "x y", "Zz"])),
            _ => self.sample(ty),
        }
    }
}

/// Columns with names of their own: of two alike a subquery could not say which.
fn named(items: &[String]) -> String {
    let named: Vec<String> = items.iter().enumerate().map(|(i, item)| format!("{item} AS x{i}")).collect();
    named.join(", ")
}

/// Aggregates whose result does not depend on the order of rows.
const AGGREGATES: &[(&str, &str)] = &[
    ("bigint", "count(*)"),
    ("bigint", "count({text})"),
    ("bigint", "count(DISTINCT {integer})"),
    ("bigint", "count(DISTINCT {text})"),
    ("bigint", "sum({integer})"),
    ("bigint", "sum({smallint})"),
    ("numeric", "sum({bigint})"),
    ("numeric", "sum({numeric(10,2)})"),
    ("numeric", "avg({integer})"),
    ("numeric", "avg({numeric(10,2)})"),
    ("numeric", "avg({smallint})"),
    ("integer", "min({integer})"),
    ("integer", "max({integer})"),
    ("text", "min({text})"),
    ("text", "max({text})"),
    ("date", "max({date})"),
    ("timestamp", "min({timestamp})"),
    ("double precision", "max({double precision})"),
    ("boolean", "bool_and({boolean})"),
    ("boolean", "bool_or({boolean})"),
    ("boolean", "every({boolean})"),
    ("integer", "bit_and({integer})"),
    ("integer", "bit_or({integer})"),
    ("text", "string_agg(DISTINCT {text}, ',')"),
    ("integer[]", "array_agg(DISTINCT {integer})"),
    ("numeric", "variance({integer})"),
    ("numeric", "stddev_pop({smallint})"),
    ("interval", "max({interval})"),
];

/// Window calls.
const WINDOWS: &[(&str, &str)] = &[
    ("bigint", "row_number()"),
    ("bigint", "rank()"),
    ("bigint", "dense_rank()"),
    ("bigint", "count(*)"),
    ("bigint", "sum({integer})"),
    ("numeric", "avg({integer})"),
    ("integer", "min({integer})"),
    ("text", "max({text})"),
    ("integer", "lag({integer})"),
    ("integer", "lead({integer}, 2)"),
    ("text", "first_value({text})"),
    ("text", "last_value({text})"),
    ("integer", "nth_value({integer}, 2)"),
];

/// Frames; most calls have none.
const FRAMES: &[&str] = &[
    "",
    "",
    "",
    " ROWS BETWEEN 1 PRECEDING AND 1 FOLLOWING",
    " ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
    " RANGE BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
    " GROUPS BETWEEN 1 PRECEDING AND CURRENT ROW",
];
