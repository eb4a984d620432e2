//! EXPLAIN: a plan as PostgreSQL prints it.
//!
//! Nodes that PostgreSQL does not have are shown where it has them: a filter and a projection belong to
//! the node below them, and the build side of a hash join stands under a `Hash` node.

mod conflicts;
mod deparse;
mod format;
mod node;

use std::time::Duration;

use amphora_storage::{Datum, Row};
use serde_json::{Map, Value, json};

use crate::executor::Statistics;
use crate::plan::{Explain, ExplainFormat, Plan, Statement};
use node::{Describer, Shown};

/// A plan to be shown, with what it did if it was run.
pub struct Report<'a> {
    explain: &'a Explain,
    ctes: &'a [Plan],
    planning: Duration,
    ran: Option<(Statistics, Duration)>,
    /// How old the rows were that it read, where that was chosen
    read_mode: Option<String>,
}

impl<'a> Report<'a> {
    /// A report on a statement that was not run (yet).
    pub fn new(explain: &'a Explain, ctes: &'a [Plan], planning: Duration) -> Report<'a> {
        Report { explain, ctes, planning, ran: None, read_mode: None }
    }

    /// It was run, with these statistics, for so long.
    pub fn ran(&mut self, statistics: Statistics, elapsed: Duration) {
        self.ran = Some((statistics, elapsed));
    }

    /// It read rows of this age.
    pub fn read(&mut self, mode: String) {
        self.read_mode = Some(mode);
    }

    /// The report's rows: one a line, or one JSON document.
    pub fn rows(&self) -> Vec<Row> {
        let tree = self.tree();
        match self.explain.format {
            ExplainFormat::Text => {}
            ExplainFormat::Json => {
                let document = Value::Array(vec![self.document(&tree)]);
                let text = serde_json::to_string_pretty(&document).unwrap_or_default();
                return vec![vec![Datum::text(text)]];
            }
            ExplainFormat::Yaml => return vec![vec![Datum::text(format::yaml(&self.document(&tree)))]],
            ExplainFormat::Xml => return vec![vec![Datum::text(format::xml(&self.document(&tree)))]],
        }
        let mut lines = Vec::new();
        self.text(&tree, 0, &mut lines);
        if self.explain.conflicts {
            lines.push("Conflicts:".to_owned());
            for fate in conflicts::fates(&self.explain.statement) {
                lines.push(format!("  {}: {}", fate.subject, fate.outcome));
            }
        }
        if let Some(mode) = &self.read_mode {
            lines.push(format!("Read Mode: {mode}"));
        }
        if self.explain.summary {
            lines.push(format!("Planning Time: {:.3} ms", millis(self.planning)));
            if let Some((_, elapsed)) = &self.ran {
                lines.push(format!("Execution Time: {:.3} ms", millis(*elapsed)));
            }
        }
        lines.into_iter().map(|line| vec![Datum::text(line)]).collect()
    }

    fn tree(&self) -> Shown {
        let mut describer = Describer::new(self.ran.as_ref().map(|r| &r.0));
        let mut root = match &self.explain.statement {
            Statement::Query(plan) => describer.plan(plan),
            Statement::Insert(insert) => {
                let mut shown = describer.write("Insert", &insert.table, &insert.source);
                shown.conflict(insert);
                shown
            }
            Statement::Update(update) => describer.write("Update", &update.table, &update.source),
            Statement::Delete(delete) => describer.write("Delete", &delete.table, &delete.source),
            Statement::Merge(merge) => describer.write("Merge", &merge.table, &merge.source),
            Statement::Explain(_) | Statement::Command(_) | Statement::Copy(_) => Shown::utility(),
        };
        for (position, cte) in self.ctes.iter().enumerate() {
            let mut shown = describer.plan(cte);
            shown.label = Some(format!("CTE {}", node::cte_name(position)));
            root.children.insert(position, shown);
        }
        root
    }

    fn text(&self, shown: &Shown, depth: usize, lines: &mut Vec<String>) {
        // PostgreSQL indents the first level by two and each further one by six.
        let arrow = if depth == 0 { String::new() } else { format!("{}->  ", " ".repeat(6 * depth - 4)) };
        let inner = " ".repeat(if depth == 0 { 2 } else { 6 * depth + 2 });
        if let Some(label) = &shown.label {
            lines.push(format!("{}{label}", " ".repeat((6 * depth).saturating_sub(4))));
        }
        let mut line = format!("{arrow}{}", shown.title());
        if self.explain.costs
            && let Some(cost) = &shown.cost
        {
            line.push_str(&format!(
                "  (cost={:.2}..{:.2} rows={:.0} width={})",
                cost.startup, cost.total, cost.rows, cost.width
            ));
        }
        if self.ran.is_some() {
            match &shown.actual {
                Some(a) if !self.explain.timing => {
                    line.push_str(&format!(" (actual rows={:.0} loops={})", a.rows, a.loops));
                }
                Some(a) => line.push_str(&format!(
                    " (actual time={:.3}..{:.3} rows={:.0} loops={})",
                    a.startup, a.total, a.rows, a.loops
                )),
                None if shown.cost.is_some() => line.push_str(" (never executed)"),
                None => {}
            }
        }
        lines.push(line);
        for (name, value) in &shown.properties {
            lines.push(format!("{inner}{name}: {value}"));
        }
        for child in &shown.children {
            self.text(child, depth + 1, lines);
        }
    }

    /// The report as a tree of names and values.
    fn document(&self, tree: &Shown) -> Value {
        let mut document = Map::new();
        document.insert("Plan".into(), self.json_node(tree));
        if self.explain.conflicts {
            let fates = conflicts::fates(&self.explain.statement);
            let fates = fates.iter().map(|f| json!({"Subject": f.subject, "Outcome": f.outcome}));
            document.insert("Conflicts".into(), fates.collect());
        }
        if let Some(mode) = &self.read_mode {
            document.insert("Read Mode".into(), json!(mode));
        }
        if self.explain.summary {
            document.insert("Planning Time".into(), json!(millis(self.planning)));
            if let Some((_, elapsed)) = &self.ran {
                document.insert("Execution Time".into(), json!(millis(*elapsed)));
            }
        }
        Value::Object(document)
    }

    fn json_node(&self, shown: &Shown) -> Value {
        let mut node = Map::new();
        node.insert("Node Type".into(), json!(shown.kind));
        for (name, value) in &shown.facts {
            node.insert((*name).into(), json!(value));
        }
        if let Some(label) = &shown.label {
            node.insert("Subplan Name".into(), json!(label));
        }
        if self.explain.costs
            && let Some(cost) = &shown.cost
        {
            node.insert("Startup Cost".into(), json!(round(cost.startup)));
            node.insert("Total Cost".into(), json!(round(cost.total)));
            node.insert("Plan Rows".into(), json!(cost.rows.round()));
            node.insert("Plan Width".into(), json!(cost.width));
        }
        if let Some(actual) = &shown.actual {
            if self.explain.timing {
                node.insert("Actual Startup Time".into(), json!(actual.startup));
                node.insert("Actual Total Time".into(), json!(actual.total));
            }
            node.insert("Actual Rows".into(), json!(actual.rows.round()));
            node.insert("Actual Loops".into(), json!(actual.loops));
        }
        for (name, value) in &shown.properties {
            node.insert((*name).into(), json!(value));
        }
        if !shown.children.is_empty() {
            let children = shown.children.iter().map(|c| self.json_node(c)).collect();
            node.insert("Plans".into(), Value::Array(children));
        }
        Value::Object(node)
    }
}

fn round(cost: f64) -> f64 {
    (cost * 100.0).round() / 100.0
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
