use std::collections::BTreeSet;

use serde_json::Value;

use super::super::{document, methods};

/// Where the document is kept, for whoever reads it without a server.
const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");

fn written() -> String {
    serde_json::to_string_pretty(&document()).unwrap() + "\n"
}

#[test]
fn the_document_of_the_repository_is_that_of_the_server() {
    let kept = std::fs::read_to_string(KEPT).unwrap_or_default();
    assert!(
        kept == written(),
        "docs/openapi.json is not what a server answers now: \
         cargo test -p tidewire-server writes_the_document -- --ignored"
    );
}

#[test]
#[ignore = "writes docs/openapi.json; look at what has changed for those who generate clients from it"]
fn writes_the_document() {
    std::fs::write(KEPT, written()).unwrap();
}

#[test]
fn every_method_of_the_server_api_is_described() {
    assert_eq!(methods::described().map(|(name, _)| name), methods::NAMES);
}

#[test]
fn every_operation_has_a_name_of_its_own_and_every_reference_a_target() {
    let document = document();
    let (mut names, mut references) = (Vec::new(), Vec::new());
    collect(&document, &mut names, &mut references);
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    assert!(names.len() > 40 && references.len() > 40);
    for reference in references {
        let target = document.pointer(reference.strip_prefix('#').unwrap());
        assert!(target.is_some(), "{reference} leads nowhere");
    }
}

fn collect<'d>(value: &'d Value, names: &mut Vec<&'d str>, references: &mut Vec<&'d str>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_str() {
                    Some(text) if name == "operationId" => names.push(text),
                    Some(text) if name == "$ref" => references.push(text),
                    _ => collect(field, names, references),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, names, references)),
        _ => {}
    }
}
