//! Membership changes as arguments of the command line.

use std::num::ParseIntError;

use cartwheel_client::MemberChange;

const FORMS: &str = "expected add=NODE, add=NODE:WEIGHT, remove=NODE, replace=NODE:WITH, weight=NODE:WEIGHT, zone=NODE:ZONE or \
                     zone=NODE:ZONE/HOST";

/// Parses one change in one of the [`FORMS`].
pub(super) fn parse(word: &str) -> Result<MemberChange, String> {
    let (op, rest) = word.split_once('=').ok_or(FORMS)?;
    let (node, more) = match rest.split_once(':') {
        Some((node, more)) if !more.is_empty() => (node, Some(more)),
        Some(_) => return Err(format!("no value after the colon: {FORMS}")),
        None => (rest, None),
    };
    if node.is_empty() {
        return Err(format!("no node is named: {FORMS}"));
    }
    let node = node.to_owned();
    let weight = |text: &str| {
        text.parse().map_err(|error: ParseIntError| format!("{text} is not a weight ({error}); 100 is normal"))
    };
    match (op, more) {
        ("add", text) => Ok(MemberChange::Add { node, weight: text.map(weight).transpose()? }),
        ("remove", None) => Ok(MemberChange::Remove { node }),
        ("replace", Some(with)) => Ok(MemberChange::Replace { node, with: with.to_owned() }),
        ("weight", Some(text)) => Ok(MemberChange::Weight { node, weight: weight(text)? }),
        ("zone", Some(location)) => {
            let (zone, host) = location.split_once('/').map_or((location, None), |(zone, host)| (zone, Some(host)));
            Ok(MemberChange::Zone { node, zone: zone.to_owned(), host: host.map(str::to_owned) })
        }
        _ => Err(FORMS.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(word: &str) -> serde_json::Value {
        serde_json::to_value(parse(word).unwrap()).unwrap()
    }

    #[test]
    fn each_form_parses_to_its_change() {
        for (word, form) in [
            ("add=c", serde_json::json!({"op": "add", "node": "c"})),
            ("add=c:50", serde_json::json!({"op": "add", "node": "c", "weight": 50})),
            ("remove=node-1.a_b", serde_json::json!({"op": "remove", "node": "node-1.a_b"})),
            ("replace=a:d", serde_json::json!({"op": "replace", "node": "a", "with": "d"})),
            ("weight=a:0", serde_json::json!({"op": "weight", "node": "a", "weight": 0})),
            ("zone=a:x", serde_json::json!({"op": "zone", "node": "a", "zone": "x"})),
            ("zone=a:x/h1", serde_json::json!({"op": "zone", "node": "a", "zone": "x", "host": "h1"})),
            ("zone=a:x/r1/h1", serde_json::json!({"op": "zone", "node": "a", "zone": "x", "host": "r1/h1"})),
        ] {
            assert_eq!(forms(word), form, "{word}");
        }
    }

    #[test]
    fn an_invalid_change_is_refused_with_the_valid_forms() {
        for word in
            ["", "a", "add", "add=", "add=:5", "add=a:", "remove=a:b", "replace=a", "weight=a", "zone=a", "drop=a"]
        {
            assert!(parse(word).unwrap_err().contains("replace=NODE:WITH"), "{word}");
        }
        for word in ["weight=a:heavy", "add=a:-1", "weight=a:4294967296"] {
            assert!(parse(word).unwrap_err().contains("is not a weight"), "{word}");
        }
    }
}
