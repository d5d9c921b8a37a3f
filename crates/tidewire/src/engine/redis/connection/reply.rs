//! The cell in which a caller finds its reply.
//!
//! A cell is shared by the caller and the slot of its request. Who takes the reply out of it keeps the cell for the next
//! request that its thread makes: in a steady state a request allocates nothing.

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::RequestError;
use crate::engine::redis::resp::Value;

/// Cells that a thread keeps: as many as the tasks that are expected to ask at once.
const CELLS_KEPT_MAX: usize = 1_024;

pub(super) type Reply = Result<Value, RequestError>;

thread_local! {
    static KEPT: RefCell<Vec<Arc<Cell>>> = const { RefCell::new(Vec::new()) };
}

#[derive(Default)]
struct Cell(Mutex<State>);

#[derive(Default)]
enum State {
    /// Neither a reply nor a caller that waits for it.
    #[default]
    Empty,
    Awaited(Waker),
    Answered(Reply),
}

/// The reply to a queued request. Dropping it leaves the request where it is.
pub(in crate::engine::redis) struct Pending {
    /// None when the reply was taken.
    cell: Option<Arc<Cell>>,
}

/// The other end of a [`Pending`]. Its caller is told when it is dropped.
pub(super) struct Caller {
    /// None when the caller has its answer.
    cell: Option<Arc<Cell>>,
}

/// Both ends of a cell for one reply.
pub(super) fn reply() -> (Caller, Pending) {
    let kept = KEPT.with_borrow_mut(Vec::pop);
    let cell = kept.unwrap_or_default();
    (Caller { cell: Some(cell.clone()) }, Pending { cell: Some(cell) })
}

impl Pending {
    /// Waits for the reply; an error reply is a value here. Cancel-safe.
    pub(in crate::engine::redis) async fn reply(self) -> Reply {
        self.await
    }

    /// As [`Pending::reply`], for a reply that is waited for beside other things.
    pub(in crate::engine::redis) async fn wait(&mut self) -> Reply {
        self.await
    }
}

impl Future for Pending {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        // Who waits again for a reply that was taken waits for ever, as for any future that is done.
        let Some(cell) = &self.cell else { return Poll::Pending };
        let mut state = cell.0.lock();
        match std::mem::take(&mut *state) {
            State::Answered(reply) => {
                drop(state);
                self.cell.take().into_iter().for_each(keep);
                Poll::Ready(reply)
            }
            State::Awaited(waker) if waker.will_wake(context.waker()) => {
                *state = State::Awaited(waker);
                Poll::Pending
            }
            State::Empty | State::Awaited(_) => {
                *state = State::Awaited(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // The reply, or the task that would be woken, is not kept until the server answers.
        if let Some(cell) = &self.cell {
            *cell.0.lock() = State::Empty;
        }
    }
}

/// Keeps a cell that nobody else has any more.
fn keep(mut cell: Arc<Cell>) {
    if Arc::get_mut(&mut cell).is_none() {
        return;
    }
    KEPT.with_borrow_mut(|kept| {
        if kept.len() < CELLS_KEPT_MAX {
            kept.push(cell);
        }
    });
}

impl Caller {
    /// Hands the reply over. A caller that went away has no use for it.
    pub(super) fn answer(mut self, reply: Reply) {
        if let Some(cell) = self.cell.take() {
            answer(cell, reply);
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if let Some(cell) = self.cell.take() {
            answer(cell, Err(RequestError::Unknown("the connection was dropped".into())));
        }
    }
}

fn answer(cell: Arc<Cell>, reply: Reply) {
    let before = std::mem::replace(&mut *cell.0.lock(), State::Answered(reply));
    // First, so that the caller that is woken has the cell for itself.
    drop(cell);
    if let State::Awaited(waker) = before {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_caller_is_told_when_its_request_is_dropped() {
        let (caller, pending) = reply();
        drop(caller);
        assert!(matches!(pending.now_or_never(), Some(Err(RequestError::Unknown(_)))));
    }

    #[test]
    fn a_cell_is_used_again_only_when_nobody_else_has_it() {
        let (late, given_up) = reply();
        drop(given_up);
        let (prompt, mut pending) = reply();
        late.answer(Ok(Value::Int(1)));
        assert!((&mut pending).now_or_never().is_none(), "a reply crossed callers");
        prompt.answer(Ok(Value::Int(2)));
        let cell = pending.cell.as_ref().map(Arc::as_ptr);
        assert_eq!(pending.now_or_never(), Some(Ok(Value::Int(2))));
        let (_caller, next) = reply();
        assert_eq!(next.cell.as_ref().map(Arc::as_ptr), cell);
        assert!(next.now_or_never().is_none(), "a reply was given twice");
    }

    #[test]
    fn a_reply_that_nobody_waits_for_is_not_kept() {
        let (caller, pending) = reply();
        let bytes = bytes::Bytes::from(vec![0; 100]);
        caller.answer(Ok(Value::Bulk(bytes.clone())));
        drop(pending);
        assert!(bytes.is_unique());
    }
}
