//! JSON values as block-style YAML, with one field per line.

use serde_json::Value;

/// Formats a value as YAML, with a line end.
pub fn to_yaml(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => write_block(&mut text, value, 0),
        Value::Array(items) if !items.is_empty() => write_block(&mut text, value, 0),
        _ => {
            text.push_str(&scalar(value));
            text.push('\n');
        }
    }
    text
}

/// Writes an object's fields or a list's items, each on lines of its own. The first one continues the current line of the text.
fn write_block(text: &mut String, value: &Value, indent: usize) {
    let mut first = true;
    let mut begin = |text: &mut String| {
        if !std::mem::take(&mut first) {
            text.push_str(&" ".repeat(indent));
        }
    };
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                begin(text);
                text.push_str(&string(name));
                text.push(':');
                if is_block(field) {
                    text.push('\n');
                    text.push_str(&" ".repeat(indent + 2));
                    write_block(text, field, indent + 2);
                } else {
                    text.push_str(&format!(" {}\n", scalar(field)));
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                begin(text);
                text.push_str("- ");
                if is_block(item) {
                    write_block(text, item, indent + 2);
                } else {
                    text.push_str(&format!("{}\n", scalar(item)));
                }
            }
        }
        _ => {}
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

/// Formats a scalar on one line. JSON is valid YAML, so text that YAML could misread is quoted as in JSON.
fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        other => other.to_string(),
    }
}

fn string(text: &str) -> String {
    let is_plain = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|char| char.is_ascii_alphanumeric() || "-_./".contains(char))
        // Text that some YAML parser reads as a boolean, as null, or as a number.
        && !["true", "false", "yes", "no", "on", "off", "y", "n", "null", "inf", "nan"]
            .contains(&text.to_ascii_lowercase().as_str());
    if is_plain { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_field_and_item_has_its_own_line() {
        let value =
            json!({"a": 1, "b": [{"c": "x y", "d": []}, [1, null]], "e": {"f": "node-1"}, "g": {}, "no": "yes"});
        let text =
            "a: 1\nb:\n  - c: \"x y\"\n    d: []\n  - - 1\n    - null\ne:\n  f: node-1\ng: {}\n\"no\": \"yes\"\n";
        assert_eq!(to_yaml(&value), text);
    }

    #[test]
    fn ambiguous_text_is_quoted() {
        for (text, yaml) in [
            ("", "\"\""),
            ("127.0.0.1:8081", "\"127.0.0.1:8081\""),
            ("2026-01-01T00:00:00Z", "\"2026-01-01T00:00:00Z\""),
            ("True", "\"True\""),
            ("- a\n", "\"- a\\n\""),
            ("node_1.a/b", "node_1.a/b"),
        ] {
            assert_eq!(to_yaml(&json!(text)), format!("{yaml}\n"));
        }
        assert_eq!(to_yaml(&json!([])), "[]\n");
    }
}
