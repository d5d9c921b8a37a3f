//! Catalogs: the contracts of all event types of a program, or of a tenant.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Event;
use super::contract::{Contract, Definition, version_of};
use super::typed::EventSet;
use crate::error::{Error, ErrorKind, Result};

/// The version of the document that a catalog is written as.
const FORMAT: u32 = 1;

/// The contracts of event types, by type and version. Cheap to clone.
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// use tidewire::{Catalog, Event};
///
/// /// An order was placed.
/// #[derive(Event, Serialize, Deserialize)]
/// #[event(name = "order.placed", channel = "orders", key = customer)]
/// struct OrderPlaced {
///     customer: u64,
///     #[event(redact)]
///     card: String,
/// }
///
/// # fn main() -> tidewire::Result<()> {
/// let catalog = Catalog::new().with::<OrderPlaced>()?;
/// let contract = catalog.get("order.placed", 1).expect("it was added");
/// assert_eq!(contract.definition().channel.as_deref(), Some("orders"));
/// assert_eq!(Catalog::from_json(&catalog.to_json())?.len(), 1);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    by_type: Arc<BTreeMap<Box<str>, Versions>>,
}

/// The contracts of one event type.
type Versions = BTreeMap<u32, Arc<Contract>>;

/// A catalog as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    catalog: u32,
    events: Vec<Definition>,
}

impl Catalog {
    /// One without events.
    pub fn new() -> Self {
        Self::default()
    }

    /// The same with all event types of `E` and their earlier versions.
    ///
    /// # Errors
    /// `Conflict` if a type is there with the same version and another schema, or with another channel; `Codec` if a schema
    /// is not valid.
    pub fn with<E: EventSet>(mut self) -> Result<Self> {
        self.add_all(E::contracts())?;
        Ok(self)
    }

    /// The same with one more contract.
    ///
    /// # Errors
    /// As [`with`](Self::with).
    pub fn with_contract(mut self, contract: Contract) -> Result<Self> {
        self.add(&Arc::new(contract))?;
        Ok(self)
    }

    /// Reads what [`to_json`](Self::to_json) writes.
    ///
    /// # Errors
    /// `Codec` for what is no catalog; as [`Contract::new`] and [`with`](Self::with) for what is in it.
    pub fn from_json(json: &str) -> Result<Self> {
        let unreadable = |error: serde_json::Error| {
            Error::new(ErrorKind::Codec, "catalog of events cannot be read").caused_by(error)
        };
        let Document { catalog, events } = serde_json::from_str(json).map_err(unreadable)?;
        if catalog != FORMAT {
            let text = format!("catalog of events is of format {catalog}, this is read: {FORMAT}");
            return Err(Error::new(ErrorKind::Codec, text));
        }
        events
            .into_iter()
            .try_fold(Self::new(), |all, definition| all.with_contract(Contract::new(definition)?))
    }

    /// The catalog as a JSON document, in the order of types and versions: what `tidewire schema` and a server read.
    pub fn to_json(&self) -> String {
        let events = self.contracts().map(|contract| contract.definition().clone()).collect();
        // Maps with text keys into memory: there is nothing that can fail.
        serde_json::to_string_pretty(&Document { catalog: FORMAT, events }).unwrap_or_default()
    }

    /// All contracts, by type and then by version.
    pub fn contracts(&self) -> impl Iterator<Item = &Arc<Contract>> {
        self.by_type.values().flat_map(Versions::values)
    }

    /// How many contracts there are.
    pub fn len(&self) -> usize {
        self.contracts().count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_type.is_empty()
    }

    /// One version of a type.
    pub fn get(&self, event_type: &str, version: u32) -> Option<&Arc<Contract>> {
        self.by_type.get(event_type)?.get(&version)
    }

    /// The newest version of a type.
    pub fn newest(&self, event_type: &str) -> Option<&Arc<Contract>> {
        self.by_type.get(event_type)?.values().next_back()
    }

    /// The types that there are.
    pub fn types(&self) -> impl Iterator<Item = &str> {
        self.by_type.keys().map(|event_type| &**event_type)
    }

    /// The versions of a type, the oldest first.
    pub fn versions(&self, event_type: &str) -> impl Iterator<Item = u32> {
        self.by_type.get(event_type).into_iter().flat_map(BTreeMap::keys).copied()
    }

    /// The contract that an event says it keeps to.
    pub fn of(&self, event: &Event) -> Option<&Arc<Contract>> {
        self.get(event.event_type(), version_of(event)?)
    }

    /// The newest contract of each type, by the channel that it is declared for.
    pub fn channels(&self) -> BTreeMap<&str, Vec<&Arc<Contract>>> {
        let mut channels = BTreeMap::<_, Vec<_>>::new();
        for contract in self.by_type.values().filter_map(|versions| versions.values().next_back()) {
            if let Some(channel) = &contract.definition().channel {
                channels.entry(&**channel).or_default().push(contract);
            }
        }
        channels
    }

    pub(crate) fn add_all(&mut self, contracts: Vec<&'static Arc<Contract>>) -> Result<()> {
        contracts.into_iter().try_for_each(|contract| self.add(contract))
    }

    fn add(&mut self, contract: &Arc<Contract>) -> Result<()> {
        let Definition { event_type, version, channel, .. } = contract.definition();
        let known = self.by_type.get(event_type);
        if let Some(same) = known.and_then(|versions| versions.get(version)) {
            return match Arc::ptr_eq(same, contract) || same.definition() == contract.definition() {
                true => Ok(()),
                false => Err(Error::new(
                    ErrorKind::Conflict,
                    format!(
                        "{event_type} version {version} is declared twice, and not alike: make the newer one version {}",
                        version + 1
                    ),
                )),
            };
        }
        let elsewhere = known.into_iter().flat_map(Versions::values).find_map(|other| {
            let declared = other.definition().channel.as_deref()?;
            (declared != channel.as_deref()?).then_some(declared)
        });
        if let Some(elsewhere) = elsewhere {
            let channel = channel.as_deref().unwrap_or_default();
            let text = format!(
                "{event_type} is declared for channel {elsewhere:?} and for channel {channel:?}: choose one"
            );
            return Err(Error::new(ErrorKind::Conflict, text));
        }
        contract.prepare()?;
        Arc::make_mut(&mut self.by_type)
            .entry(event_type.clone())
            .or_default()
            .insert(*version, contract.clone());
        Ok(())
    }
}
