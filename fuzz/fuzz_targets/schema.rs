//! Schemas and data from outside: any JSON as a schema, any bytes as data, the two apart by a zero byte.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidewire::{Catalog, Contract, Definition, Event, JsonLimits};

fuzz_target!(|input: &[u8]| {
    let at = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    let (schema, data) = input.split_at(at);
    let Ok(schema) = serde_json::from_slice(schema) else { return };
    let definition = Definition {
        event_type: "fuzz".into(),
        version: 1,
        channel: Some("fuzz".into()),
        description: None,
        is_signed: false,
        is_sealed: false,
        schema,
    };
    let Ok(contract) = Contract::new(definition) else { return };
    let data = data.get(1..).unwrap_or_default();
    if let Err(violation) = contract.check(data, &JsonLimits::default()) {
        assert!(violation.to_string().len() < 4_096, "{violation}");
    }
    let _shown = contract.redacted(&Event::new("fuzz", data.to_vec()));
    let Ok(catalog) = Catalog::new().with_contract(contract) else { return };
    let changes = catalog.changes_since(&catalog);
    assert!(changes.iter().all(|change| change.text.contains("too")), "{changes:?}");
    let _documents = (catalog.asyncapi("fuzz", "1"), catalog.typescript());
});
