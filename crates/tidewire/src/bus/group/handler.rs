//! Async functions as handlers, and handlers as services that `tower` layers wrap.

use std::any::Any;
use std::convert::Infallible;
use std::fmt::{self, Display};
use std::future::poll_fn;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use tower_layer::Layer;
use tower_service::Service;

use super::delivery::{Delivery, States};
use super::extract::FromDelivery;
use super::outcome::{IntoOutcome, Outcome};
use crate::clock::Clock;
use crate::error::Result;
use crate::event::Contract;

/// What handles deliveries: an async function or closure of up to six arguments, each of which a delivery can give
/// ([`FromDelivery`]), that returns what becomes of the delivery ([`IntoOutcome`]).
///
/// `Args` only tells the arities apart. It may be called many times at once; each call gets one delivery. Its future is
/// dropped at an `await` when it takes too long, and with the runtime.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle deliveries",
    note = "a handler is an async function of up to six arguments that implement `FromDelivery`, that can be cloned \
            and sent, and that returns `impl IntoOutcome`"
)]
pub trait EventHandler<Args>: Clone + Send + Sync + 'static {
    /// Handles one delivery.
    fn handle(self, delivery: Delivery) -> impl Future<Output = Outcome> + Send + 'static;

    /// Whether the program gave what every argument asks for; asked once, before the first delivery.
    ///
    /// # Errors
    /// That of the first argument that lacks something.
    fn check(states: &States) -> Result<()>;

    /// The contracts of the events that its arguments read.
    fn contracts() -> Vec<&'static Arc<Contract>>;
}

/// A handler, whatever its arguments, as a `tower` service; what [`Layer`]s wrap. Cheap to clone.
#[derive(Clone)]
pub struct HandlerService {
    serve: Arc<dyn Serve>,
    check: fn(&States) -> Result<()>,
    contracts: fn() -> Vec<&'static Arc<Contract>>,
    time_limit: Option<TimeLimit>,
}

/// A delivery being handled by a [`HandlerService`].
pub struct Handling(Pin<Box<dyn Future<Output = Outcome> + Send>>);

/// How long one call may take.
#[derive(Clone)]
struct TimeLimit {
    time_max: Duration,
    clock: Clock,
}

impl HandlerService {
    pub(super) fn new<H: EventHandler<Args>, Args: 'static>(handler: H) -> Self {
        let bare = Bare { handler, args: PhantomData };
        Self { serve: Arc::new(bare), check: H::check, contracts: H::contracts, time_limit: None }
    }

    /// The same inside `layer`. An error of the layer becomes a retry.
    pub(super) fn layered<L>(self, layer: L) -> Self
    where
        L: Layer<Self>,
        L::Service: Service<Delivery, Response: IntoOutcome, Error: Display, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        let (check, contracts) = (self.check, self.contracts);
        Self { serve: Arc::new(Layered(layer.layer(self))), check, contracts, time_limit: None }
    }

    /// The same, but a call that takes longer is dropped and becomes a retry.
    pub(super) fn with_timeout(mut self, time_max: Duration, clock: Clock) -> Self {
        self.time_limit = Some(TimeLimit { time_max, clock });
        self
    }

    /// Whether the program gave what the handler's arguments ask for.
    pub(super) fn check(&self, states: &States) -> Result<()> {
        (self.check)(states)
    }

    /// The contracts of the events that the handler reads.
    pub(super) fn contracts(&self) -> Vec<&'static Arc<Contract>> {
        (self.contracts)()
    }

    /// Handles one delivery. Never panics: a panic of the handler or of a layer becomes a retry.
    pub(crate) async fn handle(&self, delivery: Delivery) -> Outcome {
        self.serve.serve(delivery, self.time_limit.clone()).0.await
    }
}

impl Service<Delivery> for HandlerService {
    type Response = Outcome;
    type Error = Infallible;
    type Future = Handling;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> Handling {
        self.serve.serve(delivery, self.time_limit.clone())
    }
}

impl fmt::Debug for HandlerService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time_max = self.time_limit.as_ref().map(|limit| limit.time_max);
        f.debug_struct("HandlerService").field("time_max", &time_max).finish_non_exhaustive()
    }
}

impl Future for Handling {
    type Output = Result<Outcome, Infallible>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(context).map(Ok)
    }
}

/// The object-safe side of a handler. The time limit is handed in, so that it shares the one box with the handler.
trait Serve: Send + Sync {
    fn serve(&self, delivery: Delivery, limit: Option<TimeLimit>) -> Handling;
}

struct Bare<H, Args> {
    handler: H,
    args: PhantomData<fn(Args)>,
}

impl<H: EventHandler<Args>, Args> Serve for Bare<H, Args> {
    fn serve(&self, delivery: Delivery, limit: Option<TimeLimit>) -> Handling {
        Handling(Box::pin(guarded(self.handler.clone().handle(delivery), limit)))
    }
}

struct Layered<S>(S);

impl<S> Serve for Layered<S>
where
    S: Service<Delivery, Response: IntoOutcome, Error: Display, Future: Send> + Clone + Send + Sync + 'static,
{
    fn serve(&self, delivery: Delivery, limit: Option<TimeLimit>) -> Handling {
        // Only the clone that was polled ready may be called.
        let mut service = self.0.clone();
        let handling = async move {
            if let Err(error) = poll_fn(|context| service.poll_ready(context)).await {
                return Outcome::retry(error);
            }
            service.call(delivery).await.into_outcome()
        };
        Handling(Box::pin(guarded(handling, limit)))
    }
}

/// Ends with an outcome, whatever `handling` does.
async fn guarded(handling: impl Future<Output = Outcome>, limit: Option<TimeLimit>) -> Outcome {
    // Dropping what took too long may panic as well, so the limit is inside.
    let limited = async move {
        let Some(TimeLimit { time_max, clock }) = limit else { return handling.await };
        tokio::select! {
            biased;
            outcome = handling => outcome,
            () = clock.sleep(time_max) => Outcome::retry(format_args!("handler took longer than {time_max:?}")),
        }
    };
    let caught = AssertUnwindSafe(limited).catch_unwind().await;
    caught.unwrap_or_else(|panic| Outcome::retry(format_args!("handler panicked: {}", text_of(&*panic))))
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("with no text")
}

macro_rules! handlers {
    ($($argument:ident)*) => {
        impl<F, Fut, Said, $($argument),*> EventHandler<($($argument,)*)> for F
        where
            F: Fn($($argument),*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = Said> + Send,
            Said: IntoOutcome,
            $($argument: FromDelivery,)*
        {
            #[allow(unused_variables, reason = "a handler without arguments looks at no delivery")]
            fn handle(self, delivery: Delivery) -> impl Future<Output = Outcome> + Send + 'static {
                async move {
                    let call = move || Ok(self($($argument::from_delivery(&delivery)?),*));
                    let called: Result<Fut, Outcome> = call();
                    match called {
                        Ok(handling) => handling.await.into_outcome(),
                        Err(outcome) => outcome,
                    }
                }
            }

            #[allow(unused_variables, reason = "a handler without arguments asks for no state")]
            fn check(states: &States) -> Result<()> {
                $($argument::check(states)?;)*
                Ok(())
            }

            fn contracts() -> Vec<&'static Arc<Contract>> {
                let all: &[Vec<&'static Arc<Contract>>] = &[$($argument::contracts()),*];
                all.concat()
            }
        }
    };
}

handlers! {}
handlers! { A }
handlers! { A B }
handlers! { A B C }
handlers! { A B C D }
handlers! { A B C D E }
handlers! { A B C D E G }

#[cfg(test)]
mod tests;
