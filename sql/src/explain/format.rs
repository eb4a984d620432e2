//! EXPLAIN's report as YAML and as XML, which PostgreSQL writes in a style of its own.

use serde_json::{Map, Value};

/// `- Plan: ` and what belongs to it, indented by four.
pub(super) fn yaml(document: &Value) -> String {
    let mut out = String::from("- ");
    if let Value::Object(fields) = document {
        yaml_fields(fields, 2, &mut out);
    }
    out
}

/// The fields of a node; the first goes on in the line that has begun.
fn yaml_fields(fields: &Map<String, Value>, indent: usize, out: &mut String) {
    for (i, (name, value)) in fields.iter().enumerate() {
        if i > 0 {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
        }
        out.push_str(name);
        out.push_str(": ");
        match value {
            Value::Object(inner) => {
                out.push('\n');
                out.push_str(&" ".repeat(indent + 2));
                yaml_fields(inner, indent + 2, out);
            }
            Value::Array(items) => {
                for item in items {
                    out.push('\n');
                    out.push_str(&" ".repeat(indent + 2));
                    out.push_str("- ");
                    match item {
                        Value::Object(inner) => yaml_fields(inner, indent + 4, out),
                        other => out.push_str(&other.to_string()),
                    }
                }
            }
            // Strings are quoted as in JSON.
            other => out.push_str(&other.to_string()),
        }
    }
}

/// A document in PostgreSQL's namespace.
pub(super) fn xml(document: &Value) -> String {
    let mut out = String::from("<explain xmlns=\"http://www.postgresql.org/2009/explain\">\n  <Query>\n");
    if let Value::Object(fields) = document {
        xml_fields(fields, 4, &mut out);
    }
    out.push_str("  </Query>\n</explain>");
    out
}

fn xml_fields(fields: &Map<String, Value>, indent: usize, out: &mut String) {
    for (name, value) in fields {
        xml_element(&name.replace(' ', "-"), value, indent, out);
    }
}

fn xml_element(tag: &str, value: &Value, indent: usize, out: &mut String) {
    let space = " ".repeat(indent);
    match value {
        Value::Object(inner) => {
            out.push_str(&format!("{space}<{tag}>\n"));
            xml_fields(inner, indent + 2, out);
            out.push_str(&format!("{space}</{tag}>\n"));
        }
        Value::Array(items) => {
            // `Plans` holds elements `Plan`.
            let one = tag.strip_suffix('s').unwrap_or("Item");
            out.push_str(&format!("{space}<{tag}>\n"));
            items.iter().for_each(|item| xml_element(one, item, indent + 2, out));
            out.push_str(&format!("{space}</{tag}>\n"));
        }
        Value::String(text) => out.push_str(&format!("{space}<{tag}>{}</{tag}>\n", escaped(text))),
        other => out.push_str(&format!("{space}<{tag}>{other}</{tag}>\n")),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\r', "&#x0d;")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents_look_as_postgresql_writes_them() {
        let document = json!({ "Plan": { "Filter": "(a < 1)", "Plans": [{ "Plan Rows": 2.0 }] } });
        let expected = "- Plan: \n    Filter: \"(a < 1)\"\n    Plans: \n      - Plan Rows: 2.0";
        assert_eq!(yaml(&document), expected);
        let expected = "<explain xmlns=\"http://www.postgresql.org/2009/explain\">\n  <Query>\n    <Plan>\n      \
            <Filter>(a &lt; 1)</Filter>\n      <Plans>\n        <Plan>\n          <Plan-Rows>2.0</Plan-Rows>\n        \
            </Plan>\n      </Plans>\n    </Plan>\n  </Query>\n</explain>";
        assert_eq!(xml(&document), expected);
    }
}
