//! How connections ended: the last some thousands of this node, for those who ask why.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tidewire::Timestamp;
use tidewire_protocol::v1::ClosedConnection;

use crate::tenants::Tenant;

/// Connections that a node remembers. With 300 bytes each it takes 3 MB when it is full.
const CLOSED_MAX: usize = 10_000;

/// The connections of this node that have ended, the newest last.
#[derive(Default)]
pub(crate) struct Journal(Mutex<VecDeque<(Arc<Tenant>, ClosedConnection)>>);

/// Who a connection was, once it was somebody's.
#[derive(Clone)]
pub(crate) struct Who {
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) user: Arc<str>,
    pub(crate) client: Arc<str>,
    pub(crate) since: Timestamp,
}

/// Which of them are asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sought {
    pub(crate) user: Option<String>,
    pub(crate) code: Option<u32>,
    pub(crate) limit: usize,
}

impl Journal {
    /// Notes how a connection ended; over the bound the oldest is forgotten.
    pub(crate) fn note(&self, tenant: &Arc<Tenant>, closed: ClosedConnection) {
        let mut all = self.0.lock();
        if all.len() == CLOSED_MAX {
            all.pop_front();
        }
        all.push_back((tenant.clone(), closed));
    }

    /// Those of a tenant that are sought, the newest first.
    pub(crate) fn find(&self, tenant: &Tenant, sought: &Sought) -> Vec<ClosedConnection> {
        let is_sought = |closed: &ClosedConnection| {
            sought.user.as_ref().is_none_or(|user| *user == closed.user)
                && sought.code.is_none_or(|code| code == closed.code)
        };
        let all = self.0.lock();
        let of_tenant = all.iter().rev().filter(|(other, _)| std::ptr::eq(&**other, tenant));
        of_tenant
            .map(|(_, closed)| closed)
            .filter(|closed| is_sought(closed))
            .take(sought.limit)
            .cloned()
            .collect()
    }
}
