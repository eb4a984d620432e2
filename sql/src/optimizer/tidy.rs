//! Projections that do nothing are taken away, and those of columns alone are merged.

use super::cost;
use crate::expr::Expr;
use crate::plan::{Node, Plan};

/// Tidies a plan, inputs first.
pub(super) fn tidy(plan: &mut Plan) {
    plan.node.inputs_mut(&mut |input, _| tidy(input));
    let Node::Project { input, exprs } = &mut plan.node else { return };
    // A projection over a projection of plain columns reads those columns itself.
    if let Node::Project { exprs: below, .. } = &input.node
        && below.iter().all(|e| matches!(e, Expr::Column(..)))
    {
        let places: Vec<usize> = below
            .iter()
            .map(|e| match e {
                Expr::Column(i, _) => *i,
                _ => 0,
            })
            .collect();
        exprs.iter_mut().for_each(|e| e.map_columns(&mut |c| places.get(c).copied().unwrap_or(c)));
        let taken = std::mem::replace(&mut **input, cost::nothing());
        if let Node::Project { input: inner, .. } = taken.node {
            *input = inner;
        }
    }
    let does_nothing = exprs.len() == input.width()
        && exprs.iter().enumerate().all(|(i, e)| matches!(e, Expr::Column(c, _) if *c == i));
    if does_nothing {
        let schema = plan.schema.clone();
        let taken = std::mem::replace(plan, cost::nothing());
        if let Node::Project { input, .. } = taken.node {
            *plan = Plan { schema, ..*input };
        }
    }
}
