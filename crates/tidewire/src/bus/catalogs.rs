//! What a node knows of event types: what the program declares, and what each tenant does.

use std::sync::Arc;

use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use serde_json::Value;

use crate::error::Result;
use crate::event::{Catalog, Contract, Event, HIDDEN};

/// The catalogs of a node.
#[derive(Default)]
pub(crate) struct Catalogs {
    program: RwLock<Catalog>,
    tenants: RwLock<FxHashMap<Box<str>, Catalog>>,
}

impl Catalogs {
    pub(super) fn new(program: Catalog) -> Self {
        Self { program: RwLock::new(program), tenants: RwLock::default() }
    }

    /// Adds contracts of the program's own types.
    pub(super) fn declare(&self, contracts: Vec<&'static Arc<Contract>>) -> Result<()> {
        if contracts.is_empty() {
            return Ok(());
        }
        // Made beside, so that a conflict leaves what was there as it was.
        let mut program = self.program.write();
        let mut with = program.clone();
        with.add_all(contracts)?;
        *program = with;
        Ok(())
    }

    pub(crate) fn program(&self) -> Catalog {
        self.program.read().clone()
    }

    /// The catalog of a tenant, empty unless one was set.
    pub(crate) fn of_tenant(&self, tenant: &str) -> Catalog {
        self.tenants.read().get(tenant).cloned().unwrap_or_default()
    }

    pub(crate) fn set_tenant(&self, tenant: &str, catalog: Catalog) {
        self.tenants.write().insert(tenant.into(), catalog);
    }

    /// The catalog that speaks of an event's type: the tenant's, else the program's.
    pub(super) fn speaking_of(&self, tenant: &str, event: &Event) -> Catalog {
        let own = self.of_tenant(tenant);
        if own.newest(event.event_type()).is_some() { own } else { self.program() }
    }

    /// What has been agreed of an event, if anything of it is hidden: the contract that it names, else the newest of its type.
    pub(super) fn hiding(&self, tenant: &str, event: &Event) -> Option<Arc<Contract>> {
        let catalog = self.speaking_of(tenant, event);
        let contract = catalog.of(event).or_else(|| catalog.newest(event.event_type()))?;
        contract.has_redactions().then(|| contract.clone())
    }

    /// The data of an event as those may see it who only operate the system; none if nothing of it is hidden.
    pub(crate) fn redacted(&self, tenant: &str, event: &Event) -> Option<Value> {
        let contract = self.hiding(tenant, event)?;
        // Of a version that is not known nobody can say what is hidden.
        let is_known = crate::event::version_of(event) == Some(contract.definition().version);
        Some(if is_known { contract.redacted(event) } else { HIDDEN.into() })
    }
}
