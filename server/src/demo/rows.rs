//! What a statement gave, as text, and questions about it.

use tokio_postgres::SimpleQueryMessage;

use super::Trouble;

/// Rows of columns.
pub type Rows = Vec<Vec<Option<String>>>;

/// The rows among a server's messages.
pub fn rows(messages: &[SimpleQueryMessage]) -> Rows {
    let row = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|i| row.get(i).map(str::to_owned)).collect()),
        _ => None,
    };
    messages.iter().filter_map(row).collect()
}

/// The first column of the first row.
pub fn value(rows: &Rows) -> Option<&str> {
    rows.first()?.first()?.as_deref()
}

/// The same, as a number.
pub fn number(rows: &Rows) -> Result<i64, Trouble> {
    let text = value(rows).ok_or_else(|| Trouble::new("no row where one was expected"))?;
    text.parse().map_err(|_| Trouble::new(format!("not a number: {text}")))
}

/// True if there is one row, and it is this one.
pub fn single(rows: &Rows, expected: &[&str]) -> bool {
    let [row] = rows.as_slice() else { return false };
    row.len() == expected.len() && row.iter().zip(expected).all(|(v, e)| v.as_deref() == Some(*e))
}

/// The elements of a one-dimensional array of plain words, sorted.
pub fn elements(rows: &Rows) -> Vec<String> {
    let text = value(rows).unwrap_or_default().trim_matches(['{', '}']).to_owned();
    let mut items: Vec<String> = text.split(',').filter(|i| !i.is_empty()).map(str::to_owned).collect();
    items.sort();
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_compared_without_order() {
        let rows = |text: &str| vec![vec![Some(text.to_owned())]];
        assert_eq!(elements(&rows("{wine,olives}")), ["olives", "wine"]);
        assert!(elements(&rows("{}")).is_empty());
        assert!(single(&rows("7"), &["7"]) && !single(&rows("7"), &["8"]) && !single(&vec![], &["7"]));
    }

    #[test]
    fn numbers_are_read_or_refused() {
        let rows = |text: &str| vec![vec![Some(text.to_owned())]];
        assert_eq!(number(&rows("-40")).ok(), Some(-40));
        assert!(number(&rows("many")).is_err() && number(&vec![]).is_err());
    }
}
